"""What a newcomer waits for: ``python -m benchmarks.startup --out results/startup.json``.

The import of ``core.attention`` in a fresh process beside that of torch alone, with the heavy packages it must not
bring; and ``make demo``, once installed, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.record import provenance, write_json
from benchmarks.common.table import markdown, write_text

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("lightning", "sklearn", "scipy", "matplotlib", "pandas", "jinja2", "tyro", "rich")
_IMPORT = """
import json, sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def import_seconds(module: str, repeats: int) -> tuple[float, list[str]]:
    """Median seconds of an import in fresh processes, and the heavy packages that it brought."""
    found = []
    for _ in range(repeats):
        words = [sys.executable, "-c", _IMPORT.format(module=module)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        found.append(json.loads(done.stdout))
    loaded = set(found[-1][1])
    return float(np.median([seconds for seconds, _ in found])), [name for name in HEAVY if name in loaded]


def demo_seconds() -> float:
    """Wall seconds of ``make demo`` where everything is installed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(["make", "demo", f"DEMO={folder}/demo"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/startup.json"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    imports: dict[str, Any] = {}
    for module in ("torch", "core.attention"):
        seconds, heavy = import_seconds(module, options.repeats)
        imports[module] = {"seconds": seconds, "heavy": heavy}
    demo = demo_seconds()
    write_json(
        options.out,
        {"provenance": provenance(threads=2, packages=("torch",)), "imports": imports, "demo_seconds": demo},
    )
    rows = [
        (f"`import {name}`", f"{row['seconds']:.2f}", ", ".join(row["heavy"]) or "none")
        for name, row in imports.items()
    ]
    table = markdown(("what", "seconds", "heavy packages it brings"), [*rows, ("`make demo`", f"{demo:.0f}", "")])
    write_text(options.out.with_suffix(".md"), f"## Startup\n\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
