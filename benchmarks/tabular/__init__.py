"""Benchmarks of tabular prediction: quality, step time, time to best score, leakage of the category encoding."""
