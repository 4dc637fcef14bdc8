"""Measurements of ws4py beside its peers: ``python -m benchmarks``."""
