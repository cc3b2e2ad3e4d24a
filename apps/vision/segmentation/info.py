"""``manyformer segmentation info``: what a network of a published size is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro

from apps.vision.segmentation.config import SIZES
from apps.vision.segmentation.model import CHANNELS, Segmentor
from core.command import fact_lines, measured, parse_arguments, run, say, switches, to_json
from core.errors import InputError, nearest

TASK = "segmentation"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Parameters, multiply-adds, memory and blocks of a network."""

    size: str = "b0"
    """Encoder: b0 to b5."""
    height: Annotated[int, tyro.conf.arg(metavar="H")] = 512
    """Rows of the image whose multiply-adds are counted."""
    width: Annotated[int, tyro.conf.arg(metavar="W")] = 512
    """Columns of the image."""
    classes: Annotated[int, tyro.conf.arg(metavar="K")] = 19
    """Classes."""
    json: bool = False
    """Write JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation info")
    if arguments.size not in SIZES:
        raise InputError(f"no size {arguments.size!r}", where="--size", mend=nearest(arguments.size, list(SIZES)))
    for name in ("height", "width"):
        if not 1 <= getattr(arguments, name) <= 4096:
            raise InputError(f"{getattr(arguments, name)} is not between 1 and 4096", where=f"--{name}")
    model = Segmentor(arguments.classes, SIZES[arguments.size].model())
    facts = describe(model, arguments.height, arguments.width, size=arguments.size)
    say(to_json(facts) if arguments.json else fact_lines(facts))


def describe(model: Segmentor, height: int, width: int, *, size: str | None = None) -> dict[str, Any]:
    """Facts of one network for an image of so many rows and columns; ``encoder_macs`` leave out the head."""
    images = torch.zeros(1, CHANNELS, height, width)
    return {
        "task": TASK,
        "model": "daformer",
        "size": size,
        **measured(model, lambda network: network(images)),
        "encoder_parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
        "encoder_macs": measured(model.encoder, lambda encoder: encoder(images))["macs"],
        "input": {"height": height, "width": width},
        "outputs": model.classes,
        "blocks": list(model.describe()),
        "switches": switches(model.config),
    }


if __name__ == "__main__":
    raise SystemExit(main())
