"""What the contracts of import-linter leave open: that they are there, and what a package's own module imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, those for types included."""
    return grimp.build_graph("ws4py", cache_dir=None)


def circles(graph: grimp.ImportGraph) -> Iterator[tuple[str, ...]]:
    """Yield a shortest way from each module back to itself, if there is one."""
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            chain = graph.find_shortest_chain(imported, module)
            if chain is not None:
                yield module, *chain


def test_no_imports_in_a_circle(graph: grimp.ImportGraph) -> None:
    assert next(circles(graph), None) is None


def test_each_package_has_a_contract_that_names_all_of_its_modules(graph: grimp.ImportGraph) -> None:
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert not settings.get("exclude_type_checking_imports", False)
    covered = {
        container
        for contract in settings["contracts"]
        if contract["type"] == "layers" and contract["exhaustive"] and "ignore_imports" not in contract
        for container in contract["containers"]
    }
    assert {module for module in graph.modules if graph.find_children(module)} == covered
