"""Install the servers that the tests use beside the installed ones: ``python -m tests.doors.setup``.

Each goes into a folder of its own below ``.cache/doors``, which may be thrown away. uWSGI needs a compiler. Those that
are there already are left as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent.parent.parent / ".cache" / "doors"

PACKAGES: Final = {
    "gunicorn-20.1": ["gunicorn==20.1.0", "setuptools<80"],
    "gunicorn-23": ["gunicorn==23.0.0", "packaging"],
    "gunicorn-25": ["gunicorn==25.3.0", "packaging"],
    "gunicorn-eventlet": ["gunicorn==23.0.0", "packaging", "eventlet"],
    "waitress": ["waitress"],
    "uwsgi": ["uwsgi"],
}


def folder(name: str) -> Path | None:
    """Return where a server is; None if it is not."""
    found = FOLDER / name
    return found if found.is_dir() else None


def main() -> None:
    """Install those that are missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        if folder(name) is not None:
            continue
        unfinished = FOLDER / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "--quiet", "install", "--target", str(unfinished), *packages]
        if subprocess.run(command, check=False).returncode == 0:
            unfinished.rename(FOLDER / name)
        else:
            print(f"{name} could not be installed: its tests skip")


if __name__ == "__main__":
    main()
