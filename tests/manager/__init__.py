"""Tests of the manager: what it promises, by sockets; and its schedulers, without an engine."""
