"""Tests of what carries publications between managers."""
