"""Benchmarks, metrics and reports: what an episode is worth, with intervals."""
