"""A server for the clients of publish and subscribe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pubsub.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.start()
    yield site
    site.stop()
