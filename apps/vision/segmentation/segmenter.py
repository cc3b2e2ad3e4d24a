"""A trained segmentor as one object: network, classes, sizes. Give it images of any size, save it, load it.

Of an adaptation this is the student alone. Images are resized to fit the box that the network was trained on, ratio
kept, and normalised; logits are enlarged to the image's own size, whose most probable class is the label of a pixel.
Images go through a few at a time, so that memory does not grow with their number; in windows
(:mod:`.inference`) it does not grow with the network's share of an image either. Probabilities at an image's own size
are made and judged some rows at a time: what is held of them does not grow with the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.data.classes import Classes
from apps.vision.segmentation.data.geometry import fitted, normalised, resized_image
from apps.vision.segmentation.data.pictures import Picture, read_image
from apps.vision.segmentation.data.whole import alike
from apps.vision.segmentation.inference import Inference, enlarged_rows, view_logits
from apps.vision.segmentation.model import Segmentor
from core import artefact
from core.command import RunDirectory, config_to_dict, stored_config
from core.errors import InputError
from core.rewrite import Rewrite, replay, rewrites_from_state, rewrites_state

TASK = "segmentation"
KIND, VERSION = "manyformer.segmentation", 1
Image = UInt8[np.ndarray, "H W 3"] | Picture | Path | str
"""Pixels, something to look at, or a file."""
PLAIN = Inference()
_BAND = 1 << 22
"""Bytes of an image's probabilities that are held at a time, with what is made of them in a processor's cache."""


@dataclass(frozen=True)
class Prediction:
    """What was said of an image.

    Attributes:
        labels: ``(H,W)`` train ids at the image's size.
        certainty: ``(H,W)`` probability of each.
        entropy: ``(H,W)`` of the probabilities, in log K: 0 where one class has all, 1 where all have the same. Of
            several views, the entropy of their mean. None unless it was asked for.
    """

    labels: UInt8[np.ndarray, "H W"]
    certainty: Float[np.ndarray, "H W"]
    entropy: Float[np.ndarray, "H W"] | None = None


class Segmenter:
    """Network, classes and settings.

    Args:
        config: every setting of the training.
        classes: of the labels.
        model: with as many outputs as there are classes.
        rewrites: what was done to the model since its config built it.

    Raises:
        InputError: network and classes do not fit together.
    """

    def __init__(
        self, config: SegmentationConfig, classes: Classes, model: Segmentor, rewrites: Sequence[Rewrite] = ()
    ) -> None:
        if model.classes != len(classes):
            raise InputError(f"the network has {model.classes} outputs for {len(classes)} classes", where="classes")
        self.config, self.classes = config, classes
        self.rewrites = (tuple(rewrites),)
        self.model = model.eval().requires_grad_(False)

    @property
    def networks(self) -> Sequence[Segmentor]:
        """The one network."""
        return (self.model,)

    # -------------------------------------------------------------------------------------------------- segmenting

    @torch.inference_mode()
    def predict(
        self,
        images: Iterable[Image],
        inference: Inference = PLAIN,
        *,
        box: tuple[int, int] | None = None,
        uncertainty: bool = False,
    ) -> Iterator[Prediction]:
        """One prediction for each image, in order, as they are done.

        Args:
            images: read as they are needed.
            inference: windows, views, images at a time.
            box: that images are resized to fit; the target's of the training unless given.
            uncertainty: also the entropy of each pixel.

        Raises:
            InputError: an image cannot be read.
        """
        for views, size in self._seen(images, inference, box):
            yield _judged(views, size, uncertainty)

    @torch.inference_mode()
    def probabilities(
        self, images: Iterable[Image], inference: Inference = PLAIN, *, box: tuple[int, int] | None = None
    ) -> Iterator[Float[Tensor, "K H W"]]:
        """Probabilities of the classes at each image's own size; arguments as for :meth:`predict`."""
        for views, size in self._seen(images, inference, box):
            yield torch.cat([part for _, part in _bands(views, size)], dim=1)

    def _seen(
        self, images: Iterable[Image], inference: Inference, box: tuple[int, int] | None
    ) -> Iterator[tuple[list[Float[Tensor, "K _ _"]], tuple[int, int]]]:
        """Of each image the logits of all views, and its own size."""
        # A batch counts windows: what may be cut into them comes singly.
        for pixels in _several(map(pixels_of, images), inference.batch if inference.window is None else 1):
            found: dict[int, list[Tensor]] = {}
            for places, together in alike([self.prepared(image, box) for image in pixels]):
                views = list(view_logits(self.model, together, inference))
                found |= {place: [view[row] for view in views] for row, place in enumerate(places)}
            for place, image in enumerate(pixels):
                yield found.pop(place), (image.shape[0], image.shape[1])

    def prepared(self, image: UInt8[np.ndarray, "H W 3"], box: tuple[int, int] | None = None) -> Float[Tensor, "3 h w"]:
        """What the network is given of an image."""
        size = image.shape[0], image.shape[1]
        resized = resized_image(image, fitted(size, self.config.target.box if box is None else box))
        return normalised(resized).to(next(self.model.parameters()).device)

    # --------------------------------------------------------------------------------------------- save and load

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write everything that prediction needs into ``directory``: one JSON file, one safetensors file."""
        tree = {
            "config": config_to_dict(self.config),
            "classes": self.classes.to_dict(),
            "model": dict(self.model.state_dict()),
            "rewrites": rewrites_state(self.rewrites),
        }
        artefact.save(directory, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Segmenter:
        """Read what :meth:`save` wrote. No code is executed.

        Raises:
            InputError: missing, damaged, of another kind or version, or a network that does not fit the classes.
        """
        tree: Any = artefact.load(directory, kind=KIND, version=VERSION)
        with artefact.understood(directory):
            config = stored_config(SegmentationConfig, tree["config"], where=str(directory))
            classes = Classes.from_dict(tree["classes"])
            (rewrites,) = rewrites_from_state(tree.get("rewrites"), 1)
            model = replay(Segmentor(len(classes), config.model), rewrites)
            model.load_state_dict(tree["model"])
            return cls(config, classes, model, rewrites)


def pixels_of(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    """8-bit RGB.

    Raises:
        InputError: it cannot be read, or has another form.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            mend = "give (H, W, 3) values of uint8, red first"
            raise InputError(f"an array {image.shape} of {image.dtype} is no RGB image", where="image", mend=mend)
        return image
    return read_image(Path(image)) if isinstance(image, str | Path) else image.read()


def load_run(path: Path) -> Segmenter:
    """The model of a finished run.

    Raises:
        InputError: no run, not finished, or damaged.
    """
    return Segmenter.load(RunDirectory.trained(path, task=TASK).best)


def _bands(
    views: Sequence[Float[Tensor, "K _ _"]], size: tuple[int, int]
) -> Iterator[tuple[slice, Float[Tensor, "K R W"]]]:
    """Mean probabilities of all views at the image's size, some rows at a time."""
    step = max(1, _BAND // (4 * len(views[0]) * size[1]))
    for first in range(0, size[0], step):
        rows = slice(first, min(first + step, size[0]))
        total = enlarged_rows(views[0], size, rows).softmax(0)
        for view in views[1:]:
            total = total + enlarged_rows(view, size, rows).softmax(0)
        yield rows, total / len(views)


def _judged(views: Sequence[Float[Tensor, "K _ _"]], size: tuple[int, int], uncertainty: bool) -> Prediction:
    labels, certainty = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.float32)
    entropy = np.empty(size, dtype=np.float32) if uncertainty else None
    for rows, probabilities in _bands(views, size):
        most, which = probabilities.max(0)
        labels[rows], certainty[rows] = which.to(torch.uint8).cpu().numpy(), most.cpu().numpy()
        if entropy is not None:
            nats = torch.special.entr(probabilities).sum(0)
            entropy[rows] = (nats / math.log(len(probabilities))).clamp(0.0, 1.0).cpu().numpy()
    return Prediction(labels, certainty, entropy)


def _several(images: Iterable[UInt8[np.ndarray, "H W 3"]], count: int) -> Iterator[list[UInt8[np.ndarray, "H W 3"]]]:
    """So many at a time."""
    held: list[UInt8[np.ndarray, "H W 3"]] = []
    for image in images:
        held.append(image)
        if len(held) == count:
            yield held
            held = []
    if held:
        yield held
