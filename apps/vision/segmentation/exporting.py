"""A trained segmentor as an ONNX file, which is kept only if it says what the segmentor says.

    image (B, 3, H, W) uint8, RGB -> probabilities (B, K, H, W) float32, at the image's size

Normalisation, network, enlargement and softmax are in the graph. Resizing to the box of the training is not: whoever
wants it resizes before and after, as the metadata ``box`` says. B is free, and so are H and W from :data:`SMALLEST` on
unless a size is given.

The gate: the file is checked by onnx, then run by onnxruntime on images of the drawn world and of noise, of several
sizes where those are free, beside :meth:`.segmenter.Segmenter.probabilities`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from apps.vision.segmentation.adapting import logits_of
from apps.vision.segmentation.data.geometry import normalised, resized_image
from apps.vision.segmentation.data.streets import draw_frame
from apps.vision.segmentation.inference import Inference
from apps.vision.segmentation.segmenter import TASK, Segmenter
from core.artefact import replacing
from core.command import require
from core.errors import InputError

EXTRA = "export"
SMALLEST = 32
"""Rows and columns; in smaller images grids have no cell that attention could read, which is another graph."""
OPSET = 20
AGREEMENT = 0.999
"""Share of pixels that must have the same label."""
INPUT, OUTPUT = "image", "probabilities"
_BLOCKS = "some blocks cannot be written; those of the default model can"
_LONGEST = 160
"""Characters of a reason that is not ours."""


@dataclass(frozen=True)
class Parity:
    """How a file compares with the segmentor.

    Attributes:
        images: that both were given.
        sizes: rows and columns that they had.
        difference: the greatest, of probabilities.
        agreement: share of pixels with the same label.
    """

    images: int
    sizes: tuple[tuple[int, int], ...]
    difference: float
    agreement: float


class Graph(nn.Module):
    """What is in the file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B K H W"]:
        """Probabilities of the classes at the image's size."""
        logits = logits_of(self.network, normalised(image))
        size = image.shape[2], image.shape[3]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False).softmax(1)


def export(segmenter: Segmenter, path: Path, *, size: tuple[int, int] | None = None, tolerance: float = 1e-4) -> Parity:
    """Write a segmentor as ONNX; the file has its name once it has passed the gate.

    Args:
        segmenter: on a processor.
        path: ends in ``.onnx``.
        size: rows and columns that the file takes; any from :data:`SMALLEST` on unless given.
        tolerance: the greatest difference of a probability.

    Raises:
        InputError: a package of the extra is missing, the network has no such form, the file cannot be written, or it
            says something else than the segmentor.
    """
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        require(needed, EXTRA)
    if size is not None and min(size) < SMALLEST:
        raise InputError(f"{size} is smaller than {SMALLEST} x {SMALLEST}", where="size")
    base = size or _typical(segmenter)
    program = _program(segmenter, base, fixed=size is not None)
    program.model.metadata_props.update(metadata(segmenter))
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)
        require("onnx", EXTRA).checker.check_model(str(temporary), full_check=True)
        parity = compared(segmenter, temporary, gate_sizes(base, fixed=size is not None))
        if not (parity.difference <= tolerance and parity.agreement >= AGREEMENT):
            what = (
                f"the file does not say what the model says: probabilities differ by up to {parity.difference:.2g} "
                f"(allowed {tolerance:g}), {100 * parity.agreement:.3f} % of pixels have the same label"
            )
            raise InputError(what, where=str(path), mend="nothing was written")
    return parity


def metadata(segmenter: Segmenter) -> dict[str, str]:
    """What a reader of the file must know, JSON under each name."""
    classes, box = segmenter.classes, segmenter.config.target.box
    facts: dict[str, Any] = {
        "task": TASK,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "box": None if box is None else list(box),
        "input": {"name": INPUT, "layout": "NCHW", "colour": "RGB", "type": "uint8", "smallest": SMALLEST},
        "output": {"name": OUTPUT, "layout": "NCHW", "type": "float32"},
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def _typical(segmenter: Segmenter) -> tuple[int, int]:
    """A size that it has seen."""
    height, width = segmenter.config.target.crop
    return max(SMALLEST, height), max(SMALLEST, width)


def _program(segmenter: Segmenter, size: tuple[int, int], *, fixed: bool) -> Any:
    """The graph in ONNX's form, in memory."""
    batch, height, width = (torch.export.Dim.DYNAMIC(min=least) for least in (1, SMALLEST, SMALLEST))
    free = {0: batch} if fixed else {0: batch, 2: height, 3: width}
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)  # a batch of one would be taken for a constant
    graph = Graph(segmenter.model).eval()
    try:
        with _quiet("torch.onnx"):
            program: Any = torch.onnx.export(
                graph,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=(free,),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        operator = re.search(r"target=torch\.ops\.([\w.]+)", reason)
        why = f"no operator for {operator[1]}" if operator else reason[:_LONGEST]
        raise InputError(f"the network has no form in ONNX ({why})", where=TASK, mend=_BLOCKS) from error
    axes = program.model.graph.inputs[0].shape
    names = {0: "batch", 2: "height", 3: "width"}
    program.rename_axes({str(axes[axis]): names[axis] for axis in free})
    return program


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without the warnings of a logger: the exporter's are of packages that the graph does not need."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def gate_sizes(base: tuple[int, int], *, fixed: bool) -> tuple[tuple[int, int, int], ...]:
    """Images, rows and columns of each batch that is compared.

    >>> gate_sizes((64, 96), fixed=True)
    ((1, 64, 96), (2, 64, 96))
    >>> gate_sizes((64, 96), fixed=False)
    ((1, 64, 96), (2, 96, 64), (1, 49, 77), (3, 32, 33))
    """
    height, width = base
    if fixed:
        return (1, height, width), (2, height, width)
    odd = max(SMALLEST, height * 3 // 4 + 1), max(SMALLEST, width * 4 // 5 + 1)
    return (1, height, width), (2, width, height), (1, *odd), (3, SMALLEST, SMALLEST + 1)


def compared(segmenter: Segmenter, path: Path, batches: Sequence[tuple[int, int, int]]) -> Parity:
    """Run file and segmentor on the same images."""
    differences, same, pixels = [], 0, 0
    run = session(path)
    for images in _images(batches):
        size = images.shape[2], images.shape[3]
        singly = [image.permute(1, 2, 0).numpy() for image in images]
        wanted = torch.stack(list(segmenter.probabilities(singly, Inference(batch=len(images)), box=size))).numpy()
        got = run(images.numpy())
        if got.shape != wanted.shape:
            raise InputError(f"the file gives {got.shape} for {tuple(images.shape)}", where=str(path))
        differences.append(float(np.abs(got - wanted).max()))  # nan, where one is nan
        same += int((got.argmax(1) == wanted.argmax(1)).sum())
        pixels += wanted[:, 0].size
    sizes = tuple(dict.fromkeys((height, width) for _, height, width in batches))
    return Parity(sum(count for count, _, _ in batches), sizes, float(np.max(differences)), same / pixels)


def session(path: Path) -> Any:
    """A function from images to probabilities, run by onnxruntime."""
    runtime = require("onnxruntime", EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    options.intra_op_num_threads = torch.get_num_threads()
    opened = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: UInt8[np.ndarray, "B 3 H W"]) -> Float[np.ndarray, "B K H W"]:
        try:
            found: Float[np.ndarray, "B K H W"] = opened.run([OUTPUT], {INPUT: images})[0]
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            reason = " ".join(str(error).split())[:_LONGEST]
            raise InputError(f"onnxruntime cannot run it ({reason})", where=str(path), mend=_BLOCKS) from error
        return found

    return run


def _images(batches: Sequence[tuple[int, int, int]]) -> Iterator[UInt8[Tensor, "B 3 H W"]]:
    """Streets by day and dusk, and noise: the last image of a batch of several."""
    number = 0
    for count, height, width in batches:
        drawn = []
        for place in range(count):
            image = draw_frame("dusk" if number % 2 else "day", 7 * number)[0]
            if place and place == count - 1:
                image = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            drawn.append(resized_image(image, (height, width)))
            number += 1
        yield torch.stack(drawn)
