"""Labels as people look at them: in the colours of their classes, over the image, and as a file that holds both."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from apps.vision.segmentation.data.classes import Classes, Colour

UNLABELLED: Colour = (255, 255, 255)


def coloured(labels: UInt8[np.ndarray, "H W"], classes: Classes) -> UInt8[np.ndarray, "H W 3"]:
    """Each pixel in the colour of its class; white where there is none.

    >>> two = Classes(names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))
    >>> coloured(np.array([[1, 255]], dtype=np.uint8), two).tolist()
    [[[70, 130, 180], [255, 255, 255]]]
    """
    table = np.full((256, 3), UNLABELLED, dtype=np.uint8)
    table[: len(classes)] = classes.palette
    found: UInt8[np.ndarray, "H W 3"] = table[labels]
    return found


def overlaid(
    image: UInt8[np.ndarray, "H W 3"], labels: UInt8[np.ndarray, "H W"], classes: Classes
) -> UInt8[np.ndarray, "H W 3"]:
    """The image and the colours of its classes, half of each.

    >>> two = Classes(names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))
    >>> overlaid(np.zeros((1, 1, 3), dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8), two).tolist()
    [[[64, 32, 64]]]
    """
    mixed = (image.astype(np.uint16) + coloured(labels, classes)) // 2
    halves: UInt8[np.ndarray, "H W 3"] = mixed.astype(np.uint8)
    return halves


def label_png(labels: UInt8[np.ndarray, "H W"], classes: Classes) -> bytes:
    """A palette image: its index is the train id, its colours are the classes'."""
    image = Image.fromarray(labels)
    image.putpalette([part for colour in classes.palette for part in colour])
    return _png(image)


def share_png(shares: Float[np.ndarray, "H W"]) -> bytes:
    """Shares of 0 to 1 as an image of 8-bit grey, round(255 share): whatever reads it gets the number, and the more of
    it there is, the lighter a pixel looks."""
    return _png(Image.fromarray(np.rint(255 * shares).astype(np.uint8)))


def rgb_png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """An image as a file."""
    return _png(Image.fromarray(image))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
