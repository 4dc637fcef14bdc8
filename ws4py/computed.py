"""Attributes that are computed, and that an application may have for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["computed"]

T = TypeVar("T")
Self = TypeVar("Self", bound="computed[Any]")


class computed(Generic[T]):  # noqa: N801 - a decorator, as property is
    """A property that can be assigned: what an object has been given under the name is what it has from then on.

    Classes that applications subclass have their own ``id`` or ``state`` in many a program. A property would make an
    assignment to it fail.

    :param function: that computes the value.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self: Self, instance: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> T: ...

    def __get__(self: Self, instance: object | None, owner: type[Any]) -> Self | T:
        return self if instance is None else self.function(instance)
