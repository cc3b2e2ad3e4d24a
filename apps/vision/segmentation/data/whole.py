"""Whole images to evaluate on while training: labelled ones of the source, ones of the target without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from apps.vision.segmentation.data.batches import Store
from apps.vision.segmentation.data.geometry import normalised
from apps.vision.segmentation.data.items import Labelled, View


class Role(IntEnum):
    """What an image is looked at for."""

    SOURCE = 0
    """Its label says how good the network is."""
    TARGET = 1
    """It has no label; only what networks say of it counts."""
    SHOWN = 2
    """An image of the target whose label is compared for the record, and for nothing else."""


@dataclass(frozen=True)
class Watched:
    """Images of one role, resized to fit a box."""

    role: Role
    items: Sequence[Labelled | View]
    box: tuple[int, int] | None


class WholeImages:
    """A :class:`core.training.BatchSource` of whole images.

    Args:
        watched: in their order.
        store: keeps what is decoded.
    """

    def __init__(self, watched: Sequence[Watched], store: Store) -> None:
        self.store = store
        self._items = [(of.role, item, of.box) for of in watched for item in of.items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, indices: Int64[Tensor, " B"], /) -> dict[str, Any]:
        """A batch.

        Returns:
            ``images``: of each, ``(3,h,w)`` float32 normalised; ``labels``: ``(H,W)`` uint8 train ids at original size,
            empty for what is not compared; ``roles (B,)``.

        Raises:
            InputError: an image or a label cannot be read, or their sizes differ.
        """
        chosen = [self._items[int(index)] for index in indices]
        return {
            "images": [normalised(self.store.image(item, box)) for _, item, box in chosen],
            "labels": [self._label(role, item) for role, item, _ in chosen],
            "roles": torch.tensor([int(role) for role, _, _ in chosen]),
        }

    def _label(self, role: Role, item: Labelled | View) -> Tensor:
        if role is Role.TARGET or not isinstance(item, Labelled):
            return torch.zeros(0, 0, dtype=torch.uint8)
        return self.store.label(item, None)


def alike(images: Sequence[Float[Tensor, "3 _ _"]]) -> Iterator[tuple[list[int], Float[Tensor, "G 3 h w"]]]:
    """Images of one size together: their places, and the images in one tensor.

    >>> [places for places, _ in alike([torch.zeros(3, 2, 2), torch.zeros(3, 1, 2), torch.zeros(3, 2, 2)])]
    [[0, 2], [1]]
    """
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        sizes.setdefault(tuple(image.shape), []).append(place)
    for places in sizes.values():
        yield places, torch.stack([images[place] for place in places])
