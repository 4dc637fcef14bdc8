"""Which of several things is behind a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

__all__ = ["Routes", "as_in_wsgi"]

_T = TypeVar("_T")


def as_in_wsgi(path: str) -> str:
    """Return a path as PATH_INFO has it (PEP 3333): a character for each byte of its UTF-8."""
    return path.encode().decode("latin-1")


class Routes(Generic[_T]):
    """What is behind each path.

    :param targets: by their paths, in any characters. One that ends with ``*`` stands for all that begin so; the
        longest of those counts, and a whole path before them.
    """

    def __init__(self, targets: Mapping[str, _T]) -> None:
        asked = {as_in_wsgi(path): target for path, target in targets.items()}
        self._exact = {path: target for path, target in asked.items() if not path.endswith("*")}
        self._prefixes = [(path[:-1], target) for path, target in asked.items() if path.endswith("*")]
        self._prefixes.sort(key=lambda item: -len(item[0]))

    def find(self, path: str) -> _T | None:
        """Return what is behind a path, which is as PATH_INFO has it; None if there is nothing."""
        target = self._exact.get(path)
        if target is None:
            target = next((found for prefix, found in self._prefixes if path.startswith(prefix)), None)
        return target
