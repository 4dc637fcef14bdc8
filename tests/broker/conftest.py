"""Fixtures of the tests of brokers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import MakeBroker, RedisServer, broker_maker


@pytest.fixture
def make(shared_redis: RedisServer) -> Iterator[MakeBroker]:
    """Makes brokers on the Redis that tests share."""
    with broker_maker(shared_redis) as make:
        yield make


@pytest.fixture
def make_own(own_redis: RedisServer) -> Iterator[MakeBroker]:
    """Makes brokers on a Redis of the test's own."""
    with broker_maker(own_redis) as make:
        yield make
