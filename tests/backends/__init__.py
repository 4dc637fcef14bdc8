"""Tests of threads that are greenlets."""
