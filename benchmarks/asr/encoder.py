"""Cost of Squeezeformer against Conformers with as many parameters: time, multiply-adds and memory.

    python -m benchmarks.asr.encoder --out results/asr/encoder.json --threads 2

For recordings of several lengths, alone and in a batch, in float32 and bfloat16, inference and training steps. The
contenders (:mod:`benchmarks.asr.contenders`) take turns in one process; ratios are peer / ours, round by round, as a
median with its interval. A network that does less arithmetic should be faster by at least as much: the ratio of
multiply-adds stands beside that of the times. A training step is set against the multiply-adds of its forward pass,
which the backward pass doubles for everybody. Rows measured under the same conditions are kept: the program goes on
where it was stopped. The tables are made by :mod:`benchmarks.asr.encoder_table`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.asr.contenders import CONTENDERS, Contender, Load, Mode, Pass, Precision, described, prepare
from benchmarks.asr.encoder_table import OURS, document, told
from benchmarks.asr.memory import peak_growth
from benchmarks.common.counting import multiply_adds
from benchmarks.common.record import machine, source_digest
from benchmarks.common.rounds import ratio, take_turns
from benchmarks.common.rows import Rows, chosen, measure_missing, parser

Point = tuple[Load, Precision, Mode]

LOADS = {f"{seconds}x{batch}": Load(float(seconds), batch) for seconds in (2, 10, 30) for batch in (1, 8)}
DEFAULT_OUT = Path("results/asr/encoder.json")
PACKAGES = ("torch", "torchaudio", "speechbrain")
#: What decides the cost of a pass, and how it is measured.
SOURCES = (
    *(f"apps/asr/{name}.py" for name in ("model", "inference", "config", "frontend", "subsampling", "reduction")),
    *(f"core/{room}" for room in ("attention", "convolution", "feedforward", "kernels", "layout", "norm", "position")),
    "benchmarks/asr",
    *(f"benchmarks/common/{name}.py" for name in ("measure", "memory", "rounds")),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the JSON and the tables after every row."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    if options.quick:
        return _quick(options)
    measured = partial(measure, rounds=options.rounds, seconds=options.seconds, threads=options.threads)
    rows = Rows(
        points=list(plan(options.points)),
        key=key,
        measure=measured,
        told=told,
        document=document,
        what="ratio = peer / ours, above 1 ours is cheaper; times in seconds, memory in MiB; medians",
        conditions={
            **{name: getattr(options, name) for name in ("threads", "rounds", "seconds")},
            "machine": machine(),
            "sources": source_digest(*SOURCES),
        },
        facts={"seed": 0, "contenders": {name: described(name) for name in CONTENDERS}},
        packages=PACKAGES,
    )
    measure_missing(rows, options.out, threads=options.threads)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser("benchmarks.asr.encoder", __doc__, DEFAULT_OUT, LOADS, seconds=8.0)
    made.add_argument("--quick", action="store_true", help="three rounds of the first point; nothing is written")
    return made


def _quick(options: argparse.Namespace) -> int:
    for point in plan(options.points.split(",")[0]):
        print(told(measure(point, rounds=3, seconds=0.0, threads=options.threads)), flush=True)
    return 0


def plan(points: str) -> Iterator[Point]:
    """Every row asked for, cheap ones first."""
    for load in chosen(points, LOADS):
        for mode in get_args(Mode):
            for precision in get_args(Precision):
                yield load, precision, mode


def key(point: Point) -> dict[str, Any]:
    """What tells a row from the others."""
    load, precision, mode = point
    return {**asdict(load), "precision": precision, "pass": mode}


def measure(point: Point, *, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Everything about one load, precision and pass."""
    load, precision, mode = point
    counts: dict[str, int] = {name: count(name, load, mode) for name in CONTENDERS}
    memory: dict[str, float | None] = {
        name: peak_growth(name, load, precision, mode, threads=threads) for name in CONTENDERS
    }
    calls: dict[str, Callable[[], object]] = {name: prepare(name, load, precision, mode) for name in CONTENDERS}
    times = take_turns(calls, rounds=rounds, seconds=seconds)
    calls.clear()
    gc.collect()
    return {
        **key(point),
        "rounds": len(times[OURS]),
        "seconds_per_pass": {name: statistics.median(times[name]) for name in CONTENDERS},
        "multiply_adds": counts,
        "memory_mib": memory,
        "peers": compare(times, counts, memory),
    }


@cache
def count(contender: Contender, load: Load, mode: Mode) -> int:
    """Multiply-adds of a forward pass, once whatever is cached is there."""
    prepared: Pass = prepare(contender, load, "fp32", mode)
    with torch.no_grad():
        prepared.forward()
    return multiply_adds(prepared.forward)


def compare(
    times: Mapping[str, Sequence[float]], counts: Mapping[str, int], memory: Mapping[str, float | None]
) -> dict[str, Any]:
    """Each peer against ours: ratios of time, multiply-adds and memory, and what they come to.

    ``at_least`` says whether the ratio of times reaches that of the multiply-adds, ``clear`` whether its whole interval
    is on that side.
    """
    result = {}
    for name in times:
        if name == OURS:
            continue
        time, work = ratio(times[name], times[OURS]), counts[name] / counts[OURS]
        ours, theirs = memory[OURS], memory[name]
        result[name] = {
            "time": asdict(time),
            "multiply_adds": work,
            "memory": None if ours is None or theirs is None else theirs / ours,
            "at_least": time.value >= work,
            "clear": not time.low <= work <= time.high,
        }
    return result


if __name__ == "__main__":
    sys.exit(main())
