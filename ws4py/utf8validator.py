"""The module from which programs written for 0.6 import the validator of UTF-8; it is one of the stream's names."""

from __future__ import annotations

from ws4py.streaming import Utf8Validator

__all__ = ["Utf8Validator"]
