"""Benchmarks of everthread against the bare driver in the same run: ``python -m bench``."""
