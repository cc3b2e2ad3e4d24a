"""Peak memory of B5 with a head over images of growing size: whole, in windows, and mmsegmentation's.

    python -m benchmarks.segmentation.bounded --out results/segmentation/bounded.json --threads 2

An image goes through each network once, in float32 and without gradients, in a process of its own. ``daformer`` and
``segformer`` are ours; their peers are mmsegmentation's encoder with a head of its modules, the same function by the
same weights (compared on a small image before anything is measured). In windows of 512 x 512, one at a time, the
network's share does not grow with the image: what grows is the image and its logits. The exponent says with which power
of the number of pixels the peak grows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from apps.vision.segmentation.inference import Inference, view_logits
from benchmarks.common import memory
from benchmarks.common.record import machine, source_digest
from benchmarks.common.rows import Rows, chosen, measure_missing, parser
from benchmarks.segmentation.networks import (
    PACKAGES,
    SOURCES,
    Load,
    TheirNetwork,
    demand_equal,
    difference,
    our_config,
    our_network,
)
from benchmarks.segmentation.tables import bounded_document, bounded_told

Contender = Literal["daformer", "daformer in windows", "mmseg daformer", "segformer", "mmseg segformer"]
CONTENDERS: tuple[Contender, ...] = get_args(Contender)
SIZE, WINDOW = "b5", (512, 512)
#: Rows and columns of images.
POINTS = {f"{r}x{c}": (r, c) for r, c in ((256, 512), (512, 512), (512, 1024), (1024, 1024))}
DEFAULT_OUT = Path("results/segmentation/bounded.json")
PRELOADED = ["benchmarks.segmentation.networks", "apps.vision.segmentation.inference"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the JSON and the table after every row."""
    name = "benchmarks.segmentation.bounded"
    options = parser(name, __doc__, DEFAULT_OUT, POINTS, seconds=0.0).parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = Rows(
        points=chosen(options.points, POINTS),
        key=key,
        measure=partial(measure, threads=options.threads),
        told=bounded_told,
        document=bounded_document,
        what="MiB that one pass adds at its peak",
        conditions={
            "threads": options.threads,
            "machine": machine(),
            "sources": source_digest(*SOURCES, "apps/vision/segmentation/inference.py"),
        },
        facts={"seed": 0, "size": SIZE, "window": list(WINDOW)},
        packages=PACKAGES,
    )
    measure_missing(rows, options.out, threads=options.threads)
    return 0


def key(point: tuple[int, int]) -> dict[str, Any]:
    """What tells a row from the others."""
    return dict(zip(("rows", "columns"), point, strict=True))


def measure(point: tuple[int, int], *, threads: int) -> dict[str, Any]:
    """Peak memory of every contender over one image."""
    verify()
    load = Load(*point, 1)
    grown = {name: memory.peak_growth(ready, name, load, threads=threads, preload=PRELOADED) for name in CONTENDERS}
    return {**key(point), "memory_mib": grown}


@dataclass(frozen=True)
class View:
    """An image through a network."""

    network: nn.Module
    load: Load
    inference: Inference

    def __call__(self) -> torch.Tensor:
        """Its logits."""
        with torch.inference_mode():
            return next(view_logits(self.network, self.load.images(), self.inference))


def network_of(contender: Contender, size: str = SIZE) -> nn.Module:
    """The network in evaluation mode."""
    changes = {"context": "none", "embedding": "convolution"} if contender.endswith("segformer") else {}
    network = our_network(our_config(size, **changes))
    return TheirNetwork(network).eval() if contender.startswith("mmseg") else network


def ready(contender: Contender, load: Load) -> Callable[[], object]:
    """The pass, after another one over a small image; for a process of its own."""
    network = network_of(contender)
    inference = Inference(window=WINDOW, batch=1) if contender.endswith("windows") else Inference()
    View(network, Load(64, 64, 1), inference)()
    return View(network, load, inference)


@cache
def verify(size: str = SIZE) -> None:
    """Demand that peers are the same function.

    Raises:
        RuntimeError: they are not.
    """
    ours: tuple[Contender, ...] = ("daformer", "segformer")
    theirs: tuple[Contender, ...] = ("mmseg daformer", "mmseg segformer")
    for pair in zip(ours, theirs, strict=True):
        own, other = (View(network_of(name, size), Load(96, 64, 1), Inference())() for name in pair)
        demand_equal(f"logits of {pair[0]}", difference([own], [other]), "fp32")


if __name__ == "__main__":
    sys.exit(main())
