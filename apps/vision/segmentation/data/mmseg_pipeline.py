"""The training transforms of a config of mmsegmentation 1.x in place of our crop and flip.

Of a pipeline such as ``LoadImageFromFile, LoadAnnotations, RandomResize, RandomCrop, RandomFlip, PhotoMetricDistortion,
PackSegInputs`` what loads and what packs is ours; the rest runs as mmsegmentation runs it, on blue-green-red bytes, so
that its random crops, resizings and distortions are exactly its own. Normalising stays ours: there too it is not in the
pipeline. What is smaller than the crop is padded, the image with 0 after normalising, its label with 255.

Its transforms draw from the global generators of numpy and Python. They are seeded for each image from the generator of
the batch, and put back as they were, so that a batch stays a function of its position and a resumed run is the unbroken
one. What has a generator of its own (``Albu``) or reads other images (``RandomMosaic``) is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from apps.vision.segmentation.data.geometry import Cut, cut_image, cut_label
from apps.vision.segmentation.data.mmseg_config import training_pipeline
from apps.vision.segmentation.mmseg.ops import mmseg_module
from core.errors import InputError
from core.training import preserved
from core.training.randomness import reseed

_REFUSED = ("Albu", "RandomMosaic")
_OURS = ("Load", "Pack")
"""How the names of transforms begin that read files and that hand over."""
_CORNER = Cut(0, 0, False)


@dataclass(frozen=True)
class Pipeline:
    """What a config does to a training image after loading it.

    Attributes:
        path: the config file, which is executed.
        crop: height and width that come out of it.

    Raises:
        InputError: the config cannot be read or names no training dataset; a transform that is not known, or cannot be
            made repeatable.
    """

    path: Path
    crop: tuple[int, int]

    def __post_init__(self) -> None:
        _ = self.transforms

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is handed this may not have imported mmsegmentation, and builds its own.
        return Pipeline, (self.path, self.crop)

    @cached_property
    def transforms(self) -> tuple[Callable[[dict[str, Any]], dict[str, Any] | None], ...]:
        """In their order, without loading and packing."""
        listed = training_pipeline(self.path)
        return tuple(_built(each, self.path) for each in listed if not _name(each).startswith(_OURS))

    def __call__(
        self, image: UInt8[Tensor, "3 H W"], label: UInt8[Tensor, "H W"], generator: torch.Generator
    ) -> tuple[Float32[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
        """A normalised crop and its label.

        Args:
            image: red, green, blue.
            label: train ids, 255 for "not labelled".
            generator: decides everything random.

        Raises:
            InputError: a transform fails, gives nothing, larger images than the crop, or other than bytes.
        """
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])
        results: dict[str, Any] = {"img": pixels, "gt_seg_map": label.numpy().copy(), "seg_fields": ["gt_seg_map"]}
        results |= {"img_shape": pixels.shape[:2], "ori_shape": pixels.shape[:2]}
        seed = int(torch.randint(1 << 62, (), generator=generator))
        with preserved(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reseed(seed)
            results = self._through(results)
        made, labels = self._checked(results)
        colours = torch.from_numpy(np.ascontiguousarray(made[..., ::-1].transpose(2, 0, 1)))
        return cut_image(colours, _CORNER, self.crop), cut_label(torch.from_numpy(labels), _CORNER, self.crop)

    def _through(self, results: dict[str, Any]) -> dict[str, Any]:
        for transform in self.transforms:
            name = type(transform).__name__
            try:
                after = transform(results)
            except Exception as error:  # whatever it does not like about an image
                what = f"the transform {name} fails ({type(error).__name__}: {error})"
                raise InputError(what, where=str(self.path)) from error
            if after is None:
                raise InputError(f"the transform {name} gives no image", where=str(self.path))
            results = after
        return results

    def _checked(self, results: Mapping[str, Any]) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        made, labels = np.asarray(results["img"]), np.asarray(results["gt_seg_map"])
        where = str(self.path)
        if made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
            what = f"the pipeline gives {made.dtype} of shape {made.shape}, not bytes of three colours"
            raise InputError(what, where=where, mend="leave out what normalises; that is done here")
        if made.shape[:2] != labels.shape:
            raise InputError(f"images of {made.shape[:2]} come out with labels of {labels.shape}", where=where)
        if made.shape[0] > self.crop[0] or made.shape[1] > self.crop[1]:
            height, width = made.shape[:2]
            what = f"the pipeline gives {height} x {width}, more than the crop of {self.crop[0]} x {self.crop[1]}"
            raise InputError(what, where=where, mend=f"set crop to its crop_size, or end it with one of {self.crop}")
        return made, np.ascontiguousarray(labels).astype(np.uint8)


def _name(transform: Mapping[str, Any]) -> str:
    kind = transform.get("type")
    return (kind if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))).rpartition(".")[2]


def _built(transform: Mapping[str, Any], path: Path) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    name = _name(transform)
    if name in _REFUSED:
        why = "draws from a generator of its own" if name == "Albu" else "reads other images"
        raise InputError(f"the transform {name} {why}", where=str(path), mend="leave it out")
    scope = mmseg_module("mmengine.registry").DefaultScope
    mmseg_module("mmseg.datasets")
    registry = mmseg_module("mmseg.registry").TRANSFORMS
    try:
        # Transforms within transforms are looked for where the scope says.
        with scope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built: Callable[[dict[str, Any]], dict[str, Any] | None] = registry.build(dict(transform))
    except Exception as error:
        what = f"the transform {name} cannot be built ({type(error).__name__}: {error})"
        raise InputError(what, where=str(path)) from error
    return built
