"""Fixtures of the tests that run connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import Certificates, Stage

pytest_plugins = ["tests.browser", "tests.redis_server"]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Where a test makes its managers and connections; what it leaves is ended, and nothing may stay behind."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """TLS between a server and a client that trusts it."""
    pytest.importorskip("trustme", reason="certificates are made with the package trustme")
    return Certificates()
