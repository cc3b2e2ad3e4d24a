"""Batches of source crops with labels and target crops without, as :class:`core.training.Loader` asks for them.

What is random is drawn from a generator that is seeded from torch's global one, which the loader seeds for each
(seed, epoch, batch): a batch does not depend on what was built before, nor on workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from apps.vision.segmentation.data.classes import IGNORE
from apps.vision.segmentation.data.geometry import (
    CropConfig,
    Cut,
    cut_image,
    cut_label,
    cut_mask,
    draw_cut,
    draw_source_cut,
    fitted,
    resized_image,
    resized_label,
)
from apps.vision.segmentation.data.items import Labelled, View, count_labels
from apps.vision.segmentation.data.rare import RareClassConfig, RareClassSampler
from core.errors import InputError

Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From an image ``(3, H, W)`` uint8 and its label ``(H, W)`` uint8 to a normalised crop and its label; what is random
is drawn from the generator."""
_Key = tuple[str, tuple[int, int] | None]
STORE_BYTES = 1 << 30
"""Of resized images and labels that are kept; what does not fit is decoded again."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What batches are made of.

    Attributes:
        source: crops of the source; the category rule holds for them.
        target: crops of the target.
        rare: how source images are drawn by class; None takes each once an epoch.
    """

    source: CropConfig = field(default_factory=CropConfig)
    target: CropConfig = field(default_factory=CropConfig)
    rare: RareClassConfig | None = field(default_factory=RareClassConfig)


class Store:
    """Decoded and resized pictures, kept up to a limit; an epoch visits everything, so nothing is given up again.

    Worker processes forked from here share what is held by then; what they decode themselves stays with them.
    """

    def __init__(self, limit_bytes: int = STORE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._held: dict[_Key, Tensor] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def image(self, item: View | Labelled, box: tuple[int, int] | None) -> Tensor:
        """``(3, H, W)`` uint8, not to be written to."""
        key = item.image.where, box
        held = self._held.get(key)
        if held is None:
            pixels = item.image.read()
            held = self._keep(key, resized_image(pixels, fitted(pixels.shape[:2], box)))
        return held

    def label(self, item: Labelled, box: tuple[int, int] | None) -> Tensor:
        """``(H, W)`` uint8 train ids at the size of the image, not to be written to.

        Raises:
            InputError: image and label differ in size.
        """
        key = item.label.where, box
        held = self._held.get(key)
        if held is None:
            values = item.label.read()
            if values.shape != item.image.size:
                raise sizes_differ(item.image.size, values.shape[:2], item.label.where)
            held = self._keep(key, resized_label(values, fitted(values.shape[:2], box)))
        return held

    def _keep(self, key: _Key, value: Tensor) -> Tensor:
        with self._lock:
            if key not in self._held and self._bytes + value.nbytes <= self.limit_bytes:
                self._held[key] = value
                self._bytes += value.nbytes
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def sizes_differ(image: tuple[int, ...], label: tuple[int, ...], where: str) -> InputError:
    """What to say where a label does not fit its image."""
    what = f"the label is {label[1]} x {label[0]}, its image {image[1]} x {image[0]}"
    mend = "label the image at its own size"
    if image == label[::-1]:
        mend = "one of them is turned: is it EXIF rotation of the image?"
    return InputError(what, where=where, mend=mend)


class AdaptationBatches:
    """A :class:`core.training.BatchSource` of crops.

    Args:
        source: labelled images.
        target: images to adapt to; none where only the source is learned from.
        classes: names of the classes.
        config: crops and sampling.
        length: examples an epoch; as many as there are source images unless given.
        counts: from :func:`.items.count_labels`, where they are known already.
        store: keeps what is decoded.

    Raises:
        InputError: no source image, a label that cannot be read, a class too rare to be drawn, or a pipeline that
            cannot be built.
    """

    def __init__(
        self,
        source: Sequence[Labelled],
        target: Sequence[View],
        classes: Sequence[str],
        config: BatchConfig,
        *,
        length: int | None = None,
        counts: Int64[np.ndarray, "N K"] | None = None,
        store: Store | None = None,
    ) -> None:
        if not source:
            raise InputError("there is no source image")
        if config.source.crop != config.target.crop and target:
            raise InputError("crops of source and target must be of one size to be mixed", where="target.crop")
        self.source, self.target, self.config = tuple(source), tuple(target), config
        self.store = store or Store()
        self._of_source = transform_of(config.source)
        self._of_target = transform_of(config.target) if target else None
        self._length = len(self.source) if length is None else length
        self.sampler: RareClassSampler | None = None
        if config.rare is not None:
            known = count_labels(self.source, len(classes)) if counts is None else counts
            self.sampler = RareClassSampler(known, config.rare, config.source.crop, classes)

    def __len__(self) -> int:
        return self._length

    @torch.no_grad()
    def __getitem__(self, indices: Int64[Tensor, " B"], /) -> dict[str, Tensor]:
        """A batch.

        Without rare class sampling an index is that of the source image (counted round); with it, and for the target
        always, images are drawn.

        Returns:
            ``source (B,3,h,w)`` float32 normalised, ``labels (B,h,w)`` int64 train ids with 255 for "not labelled",
            ``index (B,)`` of the source images; with a target also ``target (B,3,h,w)`` and ``target_mask (B,h,w)``,
            False in the padding of images smaller than the crop.

        Raises:
            InputError: an image or label cannot be read, or their sizes differ.
        """
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))
        examples = [self._source(int(index), generator) for index in indices]
        batch = {
            "source": torch.stack([image for image, _, _ in examples]),
            "labels": torch.stack([label for _, label, _ in examples]).long(),
            "index": torch.tensor([index for _, _, index in examples]),
        }
        if self.target:
            views = [self._target(generator) for _ in examples]
            batch["target"] = torch.stack([image for image, _ in views])
            batch["target_mask"] = torch.stack([mask for _, mask in views])
        return batch

    def _source(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        config, chosen = self.config.source, None
        if self.sampler is None:
            index %= len(self.source)
        else:
            chosen, index = self.sampler.draw(generator)
        if self._of_source is not None:
            return (*self._transformed(self._of_source, self.source[index], chosen, generator), index)
        label = self.store.label(self.source[index], config.box)
        if self.sampler is None or chosen is None:
            cut = draw_source_cut(label, config, generator)
        else:
            cut = self.sampler.cut(label, chosen, config, generator)
        image = self.store.image(self.source[index], config.box)
        return cut_image(image, cut, config.crop), cut_label(label, cut, config.crop), index

    def _transformed(
        self, transform: Transform, item: Labelled, chosen: int | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """By another transform than our crop; tried again, like that, while it shows too little of a chosen class."""
        image, label = self.store.image(item, None), self.store.label(item, None)
        made = transform(image, label, generator)
        if self.sampler is not None and chosen is not None:
            for _ in range(self.sampler.config.tries):
                if int((made[1] == chosen).sum()) > self.sampler.crop_pixels:
                    break
                made = transform(image, label, generator)
        return made

    def _target(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        config = self.config.target
        view = self.target[int(torch.randint(len(self.target), (), generator=generator))]
        if self._of_target is not None:
            whole = self.store.image(view, None)
            # In place of a label, 0 where there is an image: padding makes it "not labelled".
            crop, place = self._of_target(whole, torch.zeros(whole.shape[1:], dtype=torch.uint8), generator)
            return crop, place != IGNORE
        image = self.store.image(view, config.box)
        size = image.shape[-2], image.shape[-1]
        cut: Cut = draw_cut(size, config, generator)
        return cut_image(image, cut, config.crop), cut_mask(size, cut, config.crop)


def transform_of(config: CropConfig) -> Transform | None:
    """What takes the place of our crop and flip, if anything does.

    Raises:
        InputError: the pipeline cannot be built.
    """
    if config.pipeline is None:
        return None
    from apps.vision.segmentation.data.mmseg_pipeline import Pipeline

    return Pipeline(Path(config.pipeline), config.crop)
