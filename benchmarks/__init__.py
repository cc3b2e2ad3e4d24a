"""Side-by-side programs: each writes one JSON and one table under ``results/``. Not part of the wheel."""
