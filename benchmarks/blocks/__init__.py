"""Every block against the plain one: time, peak memory, growth with the length. ``python -m benchmarks.blocks``."""
