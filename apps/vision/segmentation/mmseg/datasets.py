"""Our domains as a dataset of mmsegmentation 1.x: folders, public sets, ``synthetic:streets``, labels as we read them.

mmsegmentation 1.2.2 has no dataset for GTA, Synthia or ACDC; ours have, with their label maps (Synthia's 16-bit labels,
colours, ids of ``classes.json``). As its own loading would read label files as train ids, there is no
``seg_map_path``: the pipeline must begin with the two transforms below, and fails without them.

============================  =======================================================================================
``ManyformerDataset``         ``data``, ``domain``, ``split`` and ``layout`` as for ``manyformer segmentation train``
``LoadManyformerImage``       in place of ``LoadImageFromFile``: our strict reading, blue-green-red as it is there
``LoadManyformerLabels``      in place of ``LoadAnnotations``: train ids, 255 for "not labelled"
============================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.vision.segmentation.data.batches import sizes_differ
from apps.vision.segmentation.data.folders import Layout
from apps.vision.segmentation.data.items import SPLITS, Item, Labelled
from apps.vision.segmentation.data.mmseg import mmseg_class_names
from apps.vision.segmentation.data.sources import open_domain, refuse_faults
from apps.vision.segmentation.mmseg.ops import mmseg_module
from core.errors import InputError, nearest

_BaseSegDataset: Any = mmseg_module("mmseg.datasets").BaseSegDataset
_BaseTransform: Any = mmseg_module("mmcv.transforms").BaseTransform


class ManyformerDataset(_BaseSegDataset):  # type: ignore[misc]
    """One split of a domain of ours.

    Args:
        data: a folder, a config of mmsegmentation, or ``synthetic:streets``.
        domain: which one of it, where it has several.
        split: ``train``, ``valid`` or ``test``. Its images without a label are left out where others have one.
        layout: what lies in the folder.
        pipeline: transforms; see the module for how it begins.
        test_mode: as in mmsegmentation, like the rest.
        indices: so many of the images, or which.
        serialize_data: keep what is known of the images in one piece of memory.
        lazy_init: list them later.
        max_refetch: how often another image is tried where a transform gives none.

    Raises:
        InputError: as for the command: no such folder, domain or split, or faults of the data.
    """

    def __init__(
        self,
        data: str,
        *,
        domain: str | None = None,
        split: str = "train",
        layout: Layout = "auto",
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        opened = open_domain(data, domain, layout)
        refuse_faults(opened.faults)
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}", where=opened.name, mend=nearest(split, SPLITS))
        if opened.classes is None:
            raise InputError("nothing says which classes there are", where=opened.name, mend="write classes.json there")
        self._items: tuple[Item, ...] = opened.labelled(split) or opened.views(split)
        if not self._items:
            mend = nearest(split, list(opened.splits))
            raise InputError(f"there is no image in {split!r}", where=opened.name, mend=mend)
        super().__init__(
            metainfo={
                "classes": mmseg_class_names(opened.classes),
                "palette": [list(colour) for colour in opened.classes.palette],
                "things": sorted(opened.classes.things),
            },
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """What is known of each image; ``item`` is what our transforms read."""
        items, self._items = self._items, ()
        common = {"label_map": None, "reduce_zero_label": False}
        return [{"img_path": item.image.where, "item": item, "seg_fields": [], **common} for item in items]


class LoadManyformerImage(_BaseTransform):  # type: ignore[misc]
    """Adds ``img`` ``(H, W, 3)`` uint8 in blue-green-red, ``img_shape`` and ``ori_shape``."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results with the image."""
        pixels = _item(results).image.read()
        results["img"] = np.ascontiguousarray(pixels[..., ::-1])
        results["img_shape"] = results["ori_shape"] = pixels.shape[:2]
        return results


class LoadManyformerLabels(_BaseTransform):  # type: ignore[misc]
    """Adds ``gt_seg_map`` ``(H, W)`` uint8 train ids."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results with the labels."""
        item = _item(results)
        if not isinstance(item, Labelled):
            raise InputError("the image has no label", where=item.image.where, mend="leave LoadManyformerLabels out")
        labels = np.array(item.label.read())
        if labels.shape != item.image.size:
            raise sizes_differ(item.image.size, labels.shape, item.label.where)
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
        return results


def _item(results: dict[str, Any]) -> Item:
    item: Item | None = results.get("item")
    if item is None:
        where = str(results.get("img_path"))
        raise InputError("is no image of a ManyformerDataset", where=where, mend="use LoadImageFromFile")
    return item
