"""Where the time of DAFormer's head goes, beside heads of mmsegmentation.

    python -m benchmarks.segmentation.head --out results/segmentation/head.json --threads 2

Heads read the features of B5's widths of one 512 x 512 image. ``daformer`` and ``segformer`` are ours; each has a peer
of mmsegmentation's modules with the same weights, which gives the same logits: compared before a clock starts.
mmsegmentation's separable ASPP head (DeepLabV3+), which computes something else, is there as a measure. All take turns;
ratios are peer / ours, round by round, as a median with its interval. The parts of ours take turns likewise, each on
what it is given within the head; the multiply-adds of a part stand beside its time. Inference, in float32 and under
bfloat16 autocast.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from apps.vision.segmentation.config import ModelConfig
from apps.vision.segmentation.head import Head
from benchmarks.common.counting import multiply_adds
from benchmarks.common.record import machine, source_digest
from benchmarks.common.rounds import ratio, take_turns
from benchmarks.common.rows import Rows, chosen, measure_missing, parser
from benchmarks.segmentation.networks import (
    PACKAGES,
    SOURCES,
    Pass,
    Precision,
    demand_equal,
    difference,
    our_config,
    our_network,
    their_head,
    their_own_head,
)
from benchmarks.segmentation.tables import head_document, head_told

SIDE = 512
POINTS: dict[str, Precision] = {precision: precision for precision in get_args(Precision)}
#: Whose peer a head is: what its time is divided by.
PEERS = {"daformer of mmseg's modules": "daformer", "mmseg segformer": "segformer", "mmseg separable aspp": "daformer"}
DEFAULT_OUT = Path("results/segmentation/head.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the JSON and the tables after every row."""
    options = parser("benchmarks.segmentation.head", __doc__, DEFAULT_OUT, POINTS, seconds=40.0).parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = Rows(
        points=chosen(options.points, POINTS),
        key=lambda precision: {"precision": precision},
        measure=partial(measure, rounds=options.rounds, seconds=options.seconds),
        told=head_told,
        document=head_document,
        what="ratio = peer / ours, above 1 ours is cheaper; times in seconds; medians",
        conditions={
            **{name: getattr(options, name) for name in ("threads", "rounds", "seconds")},
            "machine": machine(),
            "sources": source_digest(*SOURCES),
        },
        facts={"seed": 0, "side": SIDE, "size": "b5"},
        packages=PACKAGES,
    )
    measure_missing(rows, options.out, threads=options.threads)
    return 0


def measure(precision: Precision, *, rounds: int, seconds: float, side: int = SIDE) -> dict[str, Any]:
    """Heads and parts in one precision."""
    config = our_config("b5")
    features = features_of(config, side)
    calls = {name: Pass(head, features, precision) for name, head in heads(config).items()}
    with torch.inference_mode():
        for ours, peer in (("daformer", "daformer of mmseg's modules"), ("segformer", "mmseg segformer")):
            apart = difference(calls[ours].forward(), calls[peer].forward())
            demand_equal(f"logits of {ours}", apart, precision)
    times = take_turns(calls, rounds=rounds, seconds=seconds, least=6)
    pieces = {name: _cast(call, precision) for name, call in parts(cast(Head, calls["daformer"].network), features)}
    spent = take_turns(pieces, rounds=rounds, seconds=seconds, least=6)
    return {
        "precision": precision,
        "rounds": len(times["daformer"]),
        "heads": {
            name: {
                "seconds": statistics.median(times[name]),
                "multiply_adds": _count(call.forward),
                "parameters": sum(weight.numel() for weight in call.network.parameters()),
                "time": asdict(ratio(times[name], times[PEERS[name]])) if name in PEERS else None,
            }
            for name, call in calls.items()
        },
        "parts": {
            name: {"seconds": statistics.median(spent[name]), "multiply_adds": _count(call)}
            for name, call in pieces.items()
        },
    }


def features_of(config: ModelConfig, side: int) -> tuple[Tensor, ...]:
    """Features of an image, channels last in memory as the encoder gives them."""
    generator = torch.Generator().manual_seed(1)
    sides = (side // 4, side // 8, side // 16, side // 32)
    maps = (torch.randn(1, c, n, n, generator=generator) for c, n in zip(config.widths, sides, strict=True))
    return tuple(found.contiguous(memory_format=torch.channels_last) for found in maps)


def heads(config: ModelConfig) -> dict[str, nn.Module]:
    """All heads, in evaluation mode."""
    fused = our_network(config)
    plain = our_network(our_config("b5", context="none", embedding="convolution"))
    options = {"in_index": 3, "in_channels": config.widths[-1], "c1_in_channels": config.widths[0], "c1_channels": 48}
    return {
        "daformer": fused.head,
        "daformer of mmseg's modules": their_head(fused),
        "segformer": plain.head,
        "mmseg segformer": their_head(plain),
        "mmseg separable aspp": their_own_head(
            "DepthwiseSeparableASPPHead", config, dilations=config.dilations, **options
        ),
    }


def parts(head: Head, features: Sequence[Tensor]) -> list[tuple[str, Callable[[], Tensor]]]:
    """The parts of DAFormer's head by their names, each on what it is given within it."""
    context, grid = head.context, features[0].shape[2:]
    assert context is not None
    enlarge = partial(functional.interpolate, size=grid, mode="bilinear", align_corners=False)
    found: list[tuple[str, Callable[[], Tensor]]] = []
    with torch.inference_mode():
        maps = []
        for level, (embed, feature) in enumerate(zip(head.embeddings, features, strict=True), start=1):
            found.append((f"embedding {level}", partial(embed, feature)))
            maps.append(embed(feature))
        found += [(f"enlarging {level}", partial(enlarge, z)) for level, z in enumerate(maps[1:], start=2)]
        large = [maps[0], *(enlarge(z) for z in maps[1:])]
        found.append(("joining levels", partial(torch.cat, large, 1)))
        joined = torch.cat(large, 1)
        results = []
        for branch, dilation in zip(context.branches, head_dilations(head), strict=True):
            results.append(branch(joined))
            if isinstance(branch, nn.Sequential):
                found.append((f"dilation {dilation}, depth-wise", partial(branch[0], joined)))
                found.append((f"dilation {dilation}, pointwise", partial(branch[1], branch[0](joined))))
            else:
                found.append(("branch 1 x 1", partial(branch, joined)))
        found.append(("joining branches", partial(torch.cat, results, 1)))
        together = torch.cat(results, 1)
        found.append(("bottleneck", partial(context.bottleneck, together)))
        found.append(("classifier", partial(head.classifier, context.bottleneck(together))))
    return found


def head_dilations(head: Head) -> list[int]:
    """Of the branches, in order; 1 for the branch without one."""
    assert head.context is not None
    convolutions = [next(m for m in branch.modules() if isinstance(m, nn.Conv2d)) for branch in head.context.branches]
    return [int(conv.dilation[0]) for conv in convolutions]


def _cast(call: Callable[[], Tensor], precision: Precision) -> Callable[[], object]:
    """The call as in inference under this precision."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            call()

    return run


def _count(call: Callable[[], object]) -> int:
    with torch.no_grad():
        return multiply_adds(call)


if __name__ == "__main__":
    sys.exit(main())
