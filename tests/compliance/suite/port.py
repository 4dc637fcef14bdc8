"""Translate autobahntestsuite 0.8.2 and autobahn 0.10.9, which are Python 2, to the running Python 3, in place.

Runs once in the suite's own environment, on a Python that still has lib2to3 (before 3.13). lib2to3 does the syntax. The
classes of the cases go on writing octets as str, one character an octet (latin-1), and ``FuzzingProtocol`` converts at
its edge; 12.* and 13.*, which hash what they send, keep bytes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from lib2to3.refactor import RefactoringTool, get_fixers_from_package
from pathlib import Path

# What the two fuzzing modes need; the rest (WAMP, broadcast, performance, ...) goes.
KEPT = {
    "__init__.py",
    "_version.py",
    "caseset.py",
    "choosereactor.py",
    "fuzzing.py",
    "report.py",
    "spectemplate.py",
    "wstest.py",
}

FIXERS = {
    "dict",
    "except",
    "filter",
    "has_key",
    "idioms",
    "import",
    "long",
    "map",
    "ne",
    "print",
    "raise",
    "repr",
    "unicode",
    "xrange",
}

HELPERS = '''\
def to_bytes(s):
    return s.encode("latin-1") if isinstance(s, str) else bytes(s)

def to_str(b):
    """Octets as the cases write them: one character per octet."""
    return b if isinstance(b, str) else bytes(b).decode("latin-1")

def text(s):
    """For reports: str or octets to readable text."""
    if s is None:
        return None
    try:
        return to_bytes(s).decode("utf8")
    except UnicodeError:
        return s if isinstance(s, str) else s.decode("utf8", "replace")

def b2a_hex(s):
    return to_bytes(s).hex()

hexlify = b2a_hex
'''

# The edge between the cases (octets as str) and autobahn (octets as bytes): methods of FuzzingProtocol.
EDGE = """\
   def sendFrame(self, opcode, payload = b"", *args, **kw):
      return self.WS.sendFrame(self, opcode, binascii.to_bytes(payload), *args, **kw)

   def sendMessage(self, payload, *args, **kw):
      return self.WS.sendMessage(self, binascii.to_bytes(payload), *args, **kw)

   def sendMessageFrameData(self, payload, *args, **kw):
      return self.WS.sendMessageFrameData(self, binascii.to_bytes(payload), *args, **kw)

   def sendCloseFrame(self, code = None, reasonUtf8 = None, isReply = False):
      reason = None if reasonUtf8 is None else binascii.to_bytes(reasonUtf8)
      return self.WS.sendCloseFrame(self, code, reason, isReply)

   def onPong(self, payload):
      if self.runCase:
         self.runCase.onPong(binascii.to_str(payload))"""


class Source:
    """The text of a module, read as latin-1 (a str literal then holds one character an octet), to be edited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="latin-1")  # which also turns \\r\\n into \\n

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.path.write_text(self.text, encoding="latin-1", newline="\n")

    def replace(self, old: str, new: str, count: int | None = 1) -> None:
        """Replace every ``old``, of which there must be ``count`` (or at least one, if it is None)."""
        found = self.text.count(old)
        if found == 0 or (count is not None and found != count):
            raise SystemExit(f"{self.path}: {old!r} found {found} times; is this another version of the suite?")
        self.text = self.text.replace(old, new)

    def sub(self, pattern: str, new: str, count: int = 0) -> None:
        """Replace every match of ``pattern``, or the first ``count``, which may be none."""
        self.text = re.sub(pattern, new, self.text, count=count)


def package(name: str) -> Path:
    """Return the folder of an installed package, without importing it: it can't be imported yet."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed in {sys.prefix}")
    return Path(spec.submodule_search_locations[0])


def remove_unneeded(suite: Path) -> None:
    """Delete what the fuzzing modes do not use, and the imports of it."""
    for path in suite.iterdir():
        if path.suffix == ".py" and path.name not in KEPT:
            path.unlink()
        elif path.name in {"wampcase", "__pycache__"}:
            shutil.rmtree(path)
    (suite / "case" / "case9_9_1.py").unlink()  # in no list of cases
    with Source(suite / "__init__.py") as source:
        source.sub(r"(?m)^import (?!choosereactor).*\n", "")
    with Source(suite / "wstest.py") as source:
        for module in ("testee", "echo", "broadcast", "massconnect", "serializer"):
            source.replace(f"import {module}\n", "")
    with Source(suite / "case" / "__init__.py") as source:
        source.replace("from case9_9_1 import *\n", "")
    with Source(suite / "report.py") as source:  # only its CSS and JavaScript strings are used
        source.text = source.text[: source.text.index("REPORT_DIR_PERMISSIONS")]
        source.sub(r"(?m)^import .*\n", "")


def translate(suite: Path) -> int:
    """Run lib2to3 over every module; return how many there are."""
    available = get_fixers_from_package("lib2to3.fixes")
    tool = RefactoringTool([name for name in available if name.rsplit("fix_", 1)[1] in FIXERS])
    paths = sorted(suite.rglob("*.py"))
    here = Path.cwd()
    for path in paths:
        with Source(path) as source:
            source.sub(r"(?m)^(#.*coding[:=]\s*)[-\w.]+.*$", "", count=1)
            if not source.text.endswith("\n"):
                source.text += "\n"
            os.chdir(path.parent)  # fix_import looks for siblings next to the file
            source.text = "# -*- coding: latin-1 -*-\n" + str(tool.refactor_string(source.text, str(path)))
            os.chdir(here)
            source.sub("\nimport binascii\n", "\nfrom autobahntestsuite import py3compat as binascii\n")
            source.sub(r"\(object, Case, \)", "(Case, )")
    return len(paths)


def mend_cases(suite: Path) -> None:
    """Edit the few cases where str and bytes, or the two divisions, differ."""
    with Source(suite / "case" / "case.py") as source:
        source.replace("return pickle.dumps(obj1) == pickle.dumps(obj2)", "return obj1 == obj2")
    with Source(suite / "case" / "case6_x_x.py") as source:
        source.replace("v.validate(vss[:i])", "v.validate(vss[:i].encode('latin-1'))", None)
    with Source(suite / "case" / "case10_1_1.py") as source:
        source.replace("len(self.payload) / self.p", "len(self.payload) // self.p")
    with Source(suite / "case" / "case12_x_x.py") as source:
        source.replace('"CLIENT_OFFERS":', '"RAW": True, "CLIENT_OFFERS":', 2)


def mend_fuzzing(suite: Path) -> None:
    """Make the two fuzzers convert octets at their edge, and write reports as text."""
    with Source(suite / "fuzzing.py") as source:
        head = "def asciiLogData(data, maxlen = 64, replace = False):\n"
        source.replace(
            head + '   ellipses = " ..."',
            head + '   data = binascii.to_bytes(data)\n   ellipses = b" ..."',
        )
        source.replace("import os, json, binascii, time", "import os, json, time", None)
        source.replace(
            "\nfrom .caseset import CaseSet",
            "\nfrom autobahntestsuite import py3compat as binascii\nfrom .caseset import CaseSet",
        )
        source.replace("p = ''.join(payload)", "p = b''.join(payload)")
        source.replace('"description": self.Case.DESCRIPTION,', '"description": binascii.text(self.Case.DESCRIPTION),')
        for key in ("localCloseReason", "remoteCloseReason"):
            source.replace(f'"{key}": self.{key},', f'"{key}": binascii.text(self.{key}),')
        for key in ("request", "response"):
            source.replace(f"self.http_{key}_data if", f"binascii.text(self.http_{key}_data) if")
        source.sub(
            r"(open\(os\.path\.join\(outdir, report_filename\), 'w')\)",
            r"\1, encoding = 'utf-8', errors = 'replace')",
        )
        source.sub(r"f\.write\(\((.*)\)\.encode\(.utf-8.\)\)", r"f.write(\1)")
        source.replace("ll.encode('utf8')", "ll")
        source.replace(
            "   def onPong(self, payload):\n      if self.runCase:\n         self.runCase.onPong(payload)", EDGE
        )
        source.replace(
            "         self.runCase.onMessage(msg, binary)",
            "         raw = getattr(self.runCase, 'RAW', False)\n"
            "         self.runCase.onMessage(msg if raw else binascii.to_str(msg), binary)",
        )
        # not on every interface
        source.replace("listenWS(factory, sslContext)", "listenWS(factory, sslContext, interface = '127.0.0.1')")
        for role in ("Server", "Client"):
            declaration = f"class Fuzzing{role}Protocol(FuzzingProtocol, WebSocket{role}Protocol):\n"
            source.replace(declaration, f"{declaration}\n   WS = WebSocket{role}Protocol\n")


def main() -> None:
    suite, autobahn = package("autobahntestsuite"), package("autobahn")
    helpers = suite / "py3compat.py"
    if helpers.exists():
        raise SystemExit(f"{suite} is translated already")
    remove_unneeded(suite)
    modules = translate(suite)
    helpers.write_text(HELPERS, encoding="utf-8")
    mend_cases(suite)
    mend_fuzzing(suite)
    with Source(autobahn / "websocket" / "protocol.py") as source:  # one true division
        source.sub(r"range\(payload_len /+ len\(payload\)\)", "range(payload_len // len(payload))")
    print(f"{modules} modules translated in {suite}")


if __name__ == "__main__":
    main()
