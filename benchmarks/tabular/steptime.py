"""Time of a training step and of an inference pass, ours against pytorch-frame's ExcelFormer, side by side.

    python -m benchmarks.tabular.steptime --out results/tabular/steptime.json --threads 2

At every size the two alternate in one process (A B, B A, A B, …), so that a drift of the machine meets both; the ratio
is taken round by round and reported with its quartiles. Peak memory is that of a fresh process each. Growth with
the number of features is the slope of log time over log N at fixed batch and width, over all N and over the wider half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.common.measure import child_environment, timed
from benchmarks.common.record import ROOT, provenance, source_digest, write_json
from benchmarks.common.table import markdown, write_text
from benchmarks.tabular.step_models import Contender, Point, Precision, build

#: One row each: growth with N, then with width, then the published size.
GROWTH = tuple(Point(features=n, batch=256, width=64) for n in (8, 16, 32, 64, 128))
POINTS = (
    *GROWTH,
    *(Point(features=16, batch=512, width=d) for d in (32, 64, 128, 256)),
    Point(features=16, batch=512, width=256, heads=32),
)
WARM_UP = 2
HEADER = (
    *("N", "batch", "width", "heads", "precision", "step ours", "step frame", "ratio [quartiles]"),
    *("inference ratio [quartiles]", "memory ours", "memory frame"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size and write the JSON and the table."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = []
    for point in POINTS[: options.points]:
        for precision in get_args(Precision):
            row = measure(point, precision, rounds=options.rounds, threads=options.threads)
            rows.append(row)
            print(f"{point} {precision}: step {row['step']['ratio']:.2f}, inference {row['infer']['ratio']:.2f}")
    payload = {
        "what": "seconds of ours and of pytorch_frame, medians; ratio = pytorch_frame / ours, above 1 ours is faster",
        "sources": source_digest("apps/tabular", "core"),
        "provenance": provenance(threads=options.threads, packages=("torch", "pytorch-frame")),
        "rounds": options.rounds,
        "rows": rows,
        "growth": growth(rows),
    }
    write_json(options.out, payload)
    write_text(options.out.with_suffix(".md"), table(payload))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular.steptime", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/tabular/steptime.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="alternations at every size")
    parser.add_argument("--points", type=int, default=len(POINTS), help="measure only the first so many sizes")
    return parser


def measure(point: Point, precision: Precision, *, rounds: int, threads: int) -> dict[str, Any]:
    """Everything about one size and precision."""
    ours, theirs = build("ours", point, precision), build("pytorch_frame", point, precision)
    return {
        **asdict(point),
        "precision": precision,
        "parameters": {"ours": ours.parameters, "pytorch_frame": theirs.parameters},
        "step": alternate(ours.step, theirs.step, rounds),
        "infer": alternate(ours.infer, theirs.infer, rounds),
        "memory_mib": {name: memory(name, point, precision, threads) for name in get_args(Contender)},
    }


def alternate(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> dict[str, float]:
    """Medians, and the ratio theirs / ours of each round with its quartiles."""
    for _ in range(WARM_UP):
        ours()
        theirs()
    pairs = []
    for index in range(rounds):
        first, second = (ours, theirs) if index % 2 == 0 else (theirs, ours)
        one, other = timed(first).wall, timed(second).wall
        pairs.append((one, other) if index % 2 == 0 else (other, one))
    ratios = [theirs_seconds / ours_seconds for ours_seconds, theirs_seconds in pairs]
    low, ratio, high = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return {
        "ours": statistics.median(pair[0] for pair in pairs),
        "pytorch_frame": statistics.median(pair[1] for pair in pairs),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
    }


def memory(contender: Contender, point: Point, precision: Precision, threads: int) -> float:
    """Growth of the peak over a few training steps, in MiB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tabular.step_memory"],
        input=json.dumps({"contender": contender, "point": asdict(point), "precision": precision}),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=child_environment(threads),
    )
    return float(done.stdout)


def growth(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Exponent of the step time in N for each contender and precision, over the sizes that differ in N alone."""
    series = [asdict(point) for point in GROWTH]
    result: dict[str, dict[str, dict[str, float]]] = {}
    for precision in get_args(Precision):
        chosen = [row for row in rows if row["precision"] == precision and {k: row[k] for k in series[0]} in series]
        if len(chosen) < len(GROWTH):
            continue
        wide = chosen[len(chosen) // 2 :]
        result[precision] = {
            name: {"all": slope(chosen, name), "wide": slope(wide, name)} for name in get_args(Contender)
        }
    return result


def slope(rows: Sequence[dict[str, Any]], contender: str) -> float:
    """Least-squares slope of log step time over log N."""
    features = np.log([row["features"] for row in rows])
    seconds = np.log([row["step"][contender] for row in rows])
    return float(np.polyfit(features, seconds, 1)[0])


def table(payload: dict[str, Any]) -> str:
    """The measured rows as Markdown."""
    lines = [_line(row) for row in payload["rows"]]
    exponents = "; ".join(
        f"{precision}: {name} {value['all']:.2f} ({value['wide']:.2f} over the wider half)"
        for precision, names in payload["growth"].items()
        for name, value in names.items()
    )
    note = "Milliseconds and MiB; ratio = pytorch-frame / ours. Growth of the step time with N, as an exponent: "
    return markdown(HEADER, lines) + f"\n{note}{exponents or 'not measured'}.\n"


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    step, infer = row["step"], row["infer"]
    sizes = (str(row[name]) for name in ("features", "batch", "width", "heads", "precision"))
    return (
        *sizes,
        f"{1000 * step['ours']:.1f}",
        f"{1000 * step['pytorch_frame']:.1f}",
        *(f"{part['ratio']:.2f} [{part['ratio_low']:.2f}, {part['ratio_high']:.2f}]" for part in (step, infer)),
        *(f"{row['memory_mib'][name]:.0f}" for name in get_args(Contender)),
    )


if __name__ == "__main__":
    sys.exit(main())
