"""Tests of the engine's parts: of its rules and its books without a socket where that can be."""
