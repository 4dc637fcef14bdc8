"""Tests of what is for single frameworks."""
