"""Applications built on :mod:`core`. Each is imported by name; none imports another."""
