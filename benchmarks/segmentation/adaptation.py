"""Cost of a step of adaptation: ours against the released procedure, on one network.

    python -m benchmarks.segmentation.adaptation --out results/segmentation/adaptation.json --threads 2

Ours goes backward through the sum; the released program three times, or two without the feature distance
(:mod:`benchmarks.segmentation.step`). Networks, batch and draws are the same, and so must be losses and gradients:
compared before a clock starts. They take turns in one process; the ratio is released / ours, round by round, as a
median with its interval. Peak memory is of a step in a process of its own, above networks and batch; gradients are in
it.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.common import memory
from benchmarks.common.record import machine, source_digest
from benchmarks.common.rounds import ratio, take_turns
from benchmarks.common.rows import Rows, chosen, measure_missing, parser
from benchmarks.segmentation.networks import PACKAGES, SOURCES, Precision, demand_equal, difference
from benchmarks.segmentation.step import Procedure, Step, prepare
from benchmarks.segmentation.tables import adaptation_document, adaptation_told

Point = tuple[str, int, bool, Precision]

#: Encoder and side of a crop.
POINTS: dict[str, tuple[str, int]] = {"b0-256": ("b0", 256), "b2-256": ("b2", 256)}
PROCEDURES: tuple[Procedure, ...] = get_args(Procedure)
DEFAULT_OUT = Path("results/segmentation/adaptation.json")
PRELOADED = ["benchmarks.segmentation.step"]
WARM_UP = 64
OUR_SOURCES = tuple(
    f"apps/vision/segmentation/{name}.py" for name in ("task", "adapting", "adaptation", "distance", "data/augment")
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the JSON and the tables after every row."""
    name = "benchmarks.segmentation.adaptation"
    options = parser(name, __doc__, DEFAULT_OUT, POINTS, seconds=40.0).parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = Rows(
        points=list(plan(options.points)),
        key=key,
        measure=partial(measure, rounds=options.rounds, seconds=options.seconds, threads=options.threads),
        told=adaptation_told,
        document=adaptation_document,
        what="ratio = released / ours, above 1 ours is cheaper; times in seconds, memory in MiB; medians",
        conditions={
            **{option: getattr(options, option) for option in ("threads", "rounds", "seconds")},
            "machine": machine(),
            "sources": source_digest(*SOURCES, *OUR_SOURCES),
        },
        facts={"seed": 0},
        packages=PACKAGES,
    )
    measure_missing(rows, options.out, threads=options.threads)
    return 0


def plan(points: str) -> Iterator[Point]:
    """Every row asked for."""
    for size, side in chosen(points, POINTS):
        for precision in get_args(Precision):
            for distance in (True, False):
                yield size, side, distance, precision


def key(point: Point) -> dict[str, Any]:
    """What tells a row from the others."""
    return dict(zip(("size", "side", "distance", "precision"), point, strict=True))


def measure(point: Point, *, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Everything about one network, with or without the distance, in one precision."""
    size, side, distance, precision = point
    grown = {
        name: memory.peak_growth(ready, name, size, side, precision, distance, threads=threads, preload=PRELOADED)
        for name in PROCEDURES
    }
    steps: dict[str, Step] = {name: prepare(name, size, side, precision, distance) for name in PROCEDURES}
    apart = verified(steps)
    times = take_turns(steps, rounds=rounds, seconds=seconds, least=6)
    steps.clear()
    gc.collect()
    return {
        **key(point),
        "difference": apart,
        "rounds": len(times["ours"]),
        "seconds_per_step": {name: statistics.median(times[name]) for name in PROCEDURES},
        "time": {name: asdict(ratio(times[name], times["ours"])) for name in PROCEDURES if name != "ours"},
        "memory_mib": grown,
        "memory": {name: _quotient(grown[name], grown["ours"]) for name in PROCEDURES if name != "ours"},
    }


def ready(name: Procedure, size: str, side: int, precision: Precision, distance: bool) -> Step:
    """The step of a procedure, after another one over small crops; for a process of its own."""
    prepare(name, size, WARM_UP, precision, distance)()
    return prepare(name, size, side, precision, distance)


def verified(steps: Mapping[str, Step]) -> float:
    """How far gradients are apart.

    Raises:
        RuntimeError: gradients, or parts of the loss, that are not the same.
    """
    ours = steps["ours"]
    losses, own, apart = ours(), [torch.cat([found.flatten() for found in ours.gradients()])], 0.0
    for name, step in steps.items():
        if name == "ours":
            continue
        found = step()
        if found.keys() != losses.keys():
            raise RuntimeError(f"losses of {name}: {', '.join(found)}; ours: {', '.join(losses)}")
        for part in losses:
            demand_equal(f"loss {part}", difference([found[part]], [losses[part]]), ours.precision)
        gap = difference(own, [torch.cat([gradient.flatten() for gradient in step.gradients()])])
        demand_equal(f"gradients of {name}", gap, ours.precision, gradients=True)
        apart = max(apart, gap)
    return apart


def _quotient(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


if __name__ == "__main__":
    sys.exit(main())
