"""Tests of who runs callbacks and who polls: the schedulers, without an engine."""
