"""``manyformer segmentation export``: a trained segmentor as an ONNX file that was compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from apps.vision.segmentation.exporting import EXTRA, INPUT, OUTPUT, export
from apps.vision.segmentation.segmenter import load_run
from core.command import parse_arguments, require, run, say, to_json
from core.errors import InputError

SUFFIX = ".onnx"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a trained segmentor as ONNX: 8-bit RGB images to probabilities of the classes, normalisation included. The
    file is run by onnxruntime beside the model, and kept only if both say the same."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.onnx")]
    """File to write."""
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    """Height and width that the file takes; any of 32 and more unless given. The batch is free."""
    tolerance: float = 1e-4
    """Most that a probability may differ by. Labels must agree on 99.9 % of pixels."""
    overwrite: bool = False
    """Replace the file if it is there."""
    json: bool = False
    """Write JSON: file, bytes, images and sizes that were compared, greatest difference, agreement."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation export")
    require("onnxruntime", EXTRA)
    out = arguments.out
    if out.suffix != SUFFIX:
        raise InputError(f"does not end in {SUFFIX}", where=str(out))
    if out.exists() and not arguments.overwrite:
        raise InputError("is there already", where=str(out), mend="give --overwrite, or another name")
    if not arguments.tolerance > 0:
        raise InputError(f"{arguments.tolerance:g} allows nothing", where="--tolerance")
    segmenter = load_run(arguments.run)
    parity = export(segmenter, out, size=arguments.size, tolerance=arguments.tolerance)
    size = out.stat().st_size
    if arguments.json:
        say(to_json({"file": out, "bytes": size, **asdict(parity)}))
        return
    height, width = arguments.size or ("height", "width")
    say(f"{out}: {size / 1e6:.1f} MB")
    say(f"  {INPUT} (batch, 3, {height}, {width}), 8-bit RGB")
    say(f"  {OUTPUT} (batch, {len(segmenter.classes)}, {height}, {width})")
    sizes = ", ".join(f"{rows} x {columns}" for rows, columns in parity.sizes)
    say(f"compared with the model on {parity.images} images of {sizes}:")
    say(f"  probabilities differ by {parity.difference:.2g} at most, labels agree on {100 * parity.agreement:.3f} %")


if __name__ == "__main__":
    raise SystemExit(main())
