"""Packaging of ws4py; the settings of the tools are in pyproject.toml."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).resolve().parent

# The example of the documentation is installed too: `ws4py demo` runs it.
DEMO = "ws4py.demo"

# What is compiled, with its sources: those in C need no Python. Whatever cannot be compiled here is left out.
NATIVE = [f"ws4py/native/{name}.c" for name in ("masking", "parsing", "utf8")]
WIRE = [f"ws4py/engine/c/{name}.c" for name in ("core", "cycle", "outbox", "parse")]
COMPILED = {"ws4py.native.framing": ["ws4py/native/framing.pyx", *NATIVE]}
if sys.platform == "linux":
    COMPILED["ws4py.engine._wire"] = ["ws4py/engine/_wire.pyx", *WIRE, *NATIVE]
HEADERS = [
    *(f"{source[:-2]}.h" for source in NATIVE),
    "ws4py/engine/_wire.pxd",
    "ws4py/engine/_views.pxi",
    "ws4py/engine/c/wire.h",
]

CHERRYPY = ["cherrypy>=18.8"]
CHEROOT = ["cheroot>=10"]
GEVENT = ["gevent"]
STATS = ["prometheus_client"]
REDIS = ["redis>=5"]
LOADTEST = ["locust"]
SOCKS = ["python-socks>=2"]
FRAMEWORKS = ["bottle", "django", "flask", "gunicorn", "tornado>=6", "werkzeug"]
# the reference imports what it describes
DOCS = ["furo", "sphinx>=7", *CHERRYPY, *GEVENT, *STATS, *REDIS, *FRAMEWORKS]
TEST = [
    *DOCS,
    *SOCKS,
    *LOADTEST,
    # running
    "pytest>=8",
    "pytest-timeout",
    "hypothesis",
    # it has wheels for these only
    "atheris; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version >= '3.11'",
    "psutil",
    # peers that others wrote
    "websockets>=14",
    "wsproto",
    "h11",
    "selenium",
    "jsonschema",
    # what the documentation moves from
    "flask-sock",
    "gevent-websocket",
    # TLS
    "pyopenssl",
    "trustme",
    # checking
    "build",
    "cython>=3.1",
    "setuptools>=77",
    "import-linter>=2",
    "mypy",
    "ruff",
    "types-psutil",
]


def version() -> str:
    """Return ``__version__``, read as text: importing the package would need its path set up already."""
    source = (HERE / "ws4py" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__(?:: \w+)? = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError("ws4py/__init__.py has no line __version__ = ...")
    return found[1]


def extensions() -> list[Extension]:
    """Return what is to be compiled.

    Where that fails, setuptools says so and goes on, unless ``WS4PY_ENGINE=compiled`` demands it; with
    ``WS4PY_ENGINE=pure`` it is not tried.

    :raises SystemExit: for another value of it.
    """
    demanded = os.environ.get("WS4PY_ENGINE", "")
    if demanded not in ("", "pure", "compiled"):
        raise SystemExit(f"WS4PY_ENGINE must be pure or compiled, not {demanded!r}")
    if demanded == "pure":
        return []
    options = [] if os.name == "nt" else ["-O3"]
    return [
        Extension(name, sources, depends=HEADERS, extra_compile_args=options, optional=demanded != "compiled")
        for name, sources in COMPILED.items()
    ]


setup(
    name="ws4py",
    version=version(),
    description="WebSocket for threaded Python servers: CherryPy, cheroot, WSGI and gevent",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="the ws4py developers",
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=["websocket", "rfc6455", "cherrypy", "cheroot", "wsgi", "gevent", "threads"],
    classifiers=[
        "Environment :: Web Environment",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Server",
        "Topic :: Software Development :: Libraries",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["ws4py", "ws4py.*"]), DEMO],
    package_dir={DEMO: "examples/chat"},
    ext_modules=extensions(),
    package_data={
        "ws4py": [
            "py.typed",
            "native/*.pyi",
            "pubsub/pubsub.js",
            *(f"server/dashboard/*.{suffix}" for suffix in ("html", "css", "js")),
        ],
        DEMO: [f"**/*.{suffix}" for suffix in ("html", "css", "js", "svg", "png", "ico", "webmanifest")],
    },
    entry_points={"console_scripts": ["ws4py = ws4py.cli:main"]},
    extras_require={
        "cherrypy": CHERRYPY,
        "gevent": GEVENT,
        "stats": STATS,
        "redis": REDIS,
        "socks": SOCKS,
        "cheroot": CHEROOT,
        "loadtest": LOADTEST,
        "docs": DOCS,
        "test": TEST,
        "all": [*CHERRYPY, *CHEROOT, *GEVENT, *STATS, *REDIS, *SOCKS, *LOADTEST],
    },
    zip_safe=False,
)
