"""Cost of our Mix Transformers against mmsegmentation's, weight for weight: time and memory.

    python -m benchmarks.segmentation.encoder --out results/segmentation/encoder.json --threads 2

For B0 and B2 an inference pass and a training step of one larger image and of four smaller ones, for B5 inference, in
float32 and under bfloat16 autocast. Both compute the same function with the same weights: results and gradients are
compared before a clock starts, and a difference ends the program. The two take turns in one process; the ratio is
theirs / ours, round by round, as a median with its interval. Peak memory is of a pass in a process of its own. Rows
measured under the same conditions are kept: the program goes on where it was stopped.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.weights import load_weights
from benchmarks.common import memory
from benchmarks.common.counting import multiply_adds
from benchmarks.common.record import machine, source_digest
from benchmarks.common.rounds import ratio, take_turns
from benchmarks.common.rows import Rows, chosen, measure_missing, parser
from benchmarks.segmentation.networks import (
    CLASSES,
    OURS,
    PACKAGES,
    SIDES,
    SOURCES,
    THEIRS,
    Load,
    Mode,
    Pass,
    Precision,
    Side,
    demand_equal,
    difference,
    our_config,
    our_network,
    their_encoder,
)
from benchmarks.segmentation.tables import encoder_document, encoder_told

Point = tuple[str, Load, Mode, Precision]

_LARGE, _SMALL = Load(512, 512, 1), Load(256, 256, 4)
#: Sizes and loads by their names on the command line, cheap ones first.
POINTS: dict[str, tuple[str, Load, tuple[Mode, ...]]] = {
    "b0-512x512x1": ("b0", _LARGE, get_args(Mode)),
    "b0-256x256x4": ("b0", _SMALL, get_args(Mode)),
    "b2-512x512x1": ("b2", _LARGE, get_args(Mode)),
    "b2-256x256x4": ("b2", _SMALL, get_args(Mode)),
    "b5-512x512x1": ("b5", _LARGE, ("infer",)),
}
DEFAULT_OUT = Path("results/segmentation/encoder.json")
WARM_UP = Load(64, 64, 1)
PRELOADED = ["benchmarks.segmentation.networks", "benchmarks.common.rows"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the JSON and the tables after every row."""
    options = parser("benchmarks.segmentation.encoder", __doc__, DEFAULT_OUT, POINTS, seconds=15.0).parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = Rows(
        points=list(plan(options.points)),
        key=key,
        measure=partial(measure, rounds=options.rounds, seconds=options.seconds, threads=options.threads),
        told=encoder_told,
        document=encoder_document,
        what="ratio = theirs / ours, above 1 ours is cheaper; times in seconds, memory in MiB; medians",
        conditions={
            **{name: getattr(options, name) for name in ("threads", "rounds", "seconds")},
            "machine": machine(),
            "sources": source_digest(*SOURCES),
        },
        facts={"seed": 0},
        packages=PACKAGES,
    )
    measure_missing(rows, options.out, threads=options.threads)
    return 0


def plan(points: str) -> Iterator[Point]:
    """Every row asked for."""
    for size, load, modes in chosen(points, POINTS):
        for mode in modes:
            for precision in get_args(Precision):
                yield size, load, mode, precision


def key(point: Point) -> dict[str, Any]:
    """What tells a row from the others."""
    size, load, mode, precision = point
    return {"size": size, **asdict(load), "pass": mode, "precision": precision}


def measure(point: Point, *, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Everything about one size, load, pass and precision."""
    size, load, mode, precision = point
    apart = verified(size, mode, precision)
    grown = {
        side: memory.peak_growth(ready, side, size, load, mode, precision, threads=threads, preload=PRELOADED)
        for side in SIDES
    }
    calls = prepare(size, load, mode, precision)
    if mode == "infer":
        with torch.inference_mode():
            apart = difference(calls[OURS].forward(), calls[THEIRS].forward())
        demand_equal(f"features of {size}", apart, precision)
    times = take_turns(calls, rounds=rounds, seconds=seconds, least=6)
    with torch.no_grad():
        count = multiply_adds(calls[OURS].forward)
    calls.clear()
    gc.collect()
    ours, theirs = grown[OURS], grown[THEIRS]
    return {
        **key(point),
        "difference": apart,
        "rounds": len(times[OURS]),
        "seconds_per_pass": {side: statistics.median(times[side]) for side in SIDES},
        "multiply_adds": count,
        "time": asdict(ratio(times[THEIRS], times[OURS])),
        "memory_mib": grown,
        "memory": None if ours is None or theirs is None else theirs / ours,
    }


def prepare(size: str, load: Load, mode: Mode, precision: Precision, **changes: Any) -> dict[str, Pass]:
    """A pass of each side over the same images with the same weights; ``changes`` are of the config."""
    network, images = our_network(our_config(size, **changes)), load.images()
    sides: dict[str, nn.Module] = {OURS: network.encoder, THEIRS: their_encoder(network)}
    return {side: Pass(encoder.train(mode == "step"), images, precision) for side, encoder in sides.items()}


def ready(side: Side, size: str, load: Load, mode: Mode, precision: Precision) -> Pass:
    """The pass of one side, after another one over a small image; for a process of its own."""
    network = our_network(our_config(size))
    encoder = (network.encoder if side == OURS else their_encoder(network)).train(mode == "step")
    Pass(encoder, WARM_UP.images(), precision)()
    return Pass(encoder, load.images(), precision)


def verified(size: str, mode: Mode, precision: Precision) -> float:
    """How far the sides are apart on small images, without stochastic depth; in gradients, of a training step.

    Raises:
        RuntimeError: too far.
    """
    calls = prepare(size, Load(96, 64, 2), mode, precision, drop_path=0.0)
    if mode == "infer":
        with torch.inference_mode():
            apart = difference(calls[OURS].forward(), calls[THEIRS].forward())
    else:
        for call in calls.values():
            call()
        own, other = calls[OURS].gradients(), _renamed(size, calls[THEIRS])
        flat = [torch.cat([found[name].flatten() for name in own]) for found in (own, other)]
        apart = difference(flat[:1], flat[1:])
    demand_equal(f"{mode} of {size}", apart, precision, gradients=mode == "step")
    return apart


def _renamed(size: str, theirs: Pass) -> dict[str, torch.Tensor]:
    """Their gradients under our names: gradients of joined weights are joined gradients."""
    holder = Segmentor(CLASSES, our_config(size))
    load_weights(holder, theirs.gradients(), head=False)
    return {name: weight.detach() for name, weight in holder.encoder.named_parameters()}


if __name__ == "__main__":
    sys.exit(main())
