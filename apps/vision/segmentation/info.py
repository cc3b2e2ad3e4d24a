"""``manyformer segmentation info``: what a trained segmentor, a preset or a published size is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from apps.vision.segmentation.config import SIZES
from apps.vision.segmentation.model import CHANNELS, Segmentor
from apps.vision.segmentation.presets import PRESETS
from apps.vision.segmentation.segmenter import TASK, load_run
from core.command import fact_lines, from_preset, measured, parse_arguments, rewritten, run, say, switches, to_json
from core.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Parameters, multiply-adds, memory and blocks of a network."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a finished run."""
    preset: str | None = None
    """Name of a preset, in place of a run."""
    size: str = "b0"
    """Encoder, b0 to b5, of the published network, where neither a run nor a preset is named."""
    height: Annotated[int, tyro.conf.arg(metavar="H")] = 512
    """Rows of the image whose multiply-adds are counted."""
    width: Annotated[int, tyro.conf.arg(metavar="W")] = 512
    """Columns of the image."""
    classes: Annotated[int, tyro.conf.arg(metavar="K")] = 19
    """Classes, but of a run, which has its own."""
    json: bool = False
    """Write JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation info")
    if arguments.run is not None and arguments.preset is not None:
        raise InputError("give a run or --preset, one of them", where="--preset")
    if arguments.size not in SIZES:
        raise InputError(f"no size {arguments.size!r}", where="--size", mend=nearest(arguments.size, list(SIZES)))
    for name in ("height", "width"):
        if not 1 <= getattr(arguments, name) <= 4096:
            raise InputError(f"{getattr(arguments, name)} is not between 1 and 4096", where=f"--{name}")
    facts = _facts(arguments)
    say(to_json(facts) if arguments.json else fact_lines(facts))


def _facts(arguments: Arguments) -> dict[str, Any]:
    height, width = arguments.height, arguments.width
    if arguments.run is not None:
        segmenter = load_run(arguments.run)
        facts = {**_described(lambda: copy.deepcopy(segmenter.model), height, width), "run": str(arguments.run)}
        facts["classes"] = list(segmenter.classes.names)
        facts["adaptation"] = segmenter.config.adaptation.kind
        return facts | rewritten(segmenter.rewrites[0])
    if arguments.preset is not None:
        config = from_preset(PRESETS, arguments.preset).model
        return {**_described(lambda: Segmentor(arguments.classes, config), height, width), "preset": arguments.preset}
    published = SIZES[arguments.size].model()
    return _described(lambda: Segmentor(arguments.classes, published), height, width, size=arguments.size)


def _described(make: Callable[[], Segmentor], height: int, width: int, *, size: str | None = None) -> dict[str, Any]:
    """Of a network without values, where that can be: to draw and multiply those of a large one takes seconds."""
    try:
        with torch.device("meta"):
            return describe(make().to("meta"), height, width, size=size)
    except NotImplementedError:  # what is computed depends on values, as with experts
        return describe(make(), height, width, size=size)


def describe(model: Segmentor, height: int, width: int, *, size: str | None = None) -> dict[str, Any]:
    """Facts of one network for an image of so many rows and columns; ``encoder_macs`` leave out the head.

    Multiply-adds are those of the equations: on a processor large images go in bands, whose borders are computed twice.
    """
    images = torch.zeros(1, CHANNELS, height, width, device=next(model.parameters()).device)
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
