"""Images and labels on disk: decoded strictly by Pillow, refused in one line where they are not what they seem.

An image becomes 8-bit RGB. Grey, palette and opaque alpha are converted, EXIF orientation is applied as every viewer
does; CMYK, 16 bits and transparent pixels are refused, because a silent conversion would change what the network sees.
A label is read as stored: see :mod:`.classes` for what its values mean.

Pillow and not OpenCV, though OpenCV decodes faster (one thread: JPEG of 2048 x 1024 21 ms against 39 ms, PNG 156 ms
against 202 ms): OpenCV returns the readable part of a truncated file without an error, converts CMYK and 16 bits
unasked, and gives colours for a palette whose index is the label. Only Synthia's labels, 16-bit colour PNGs, need it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from apps.vision.segmentation.data.classes import LabelMap
from core.errors import InputError

MAX_PIXELS = 1 << 26
"""Larger images are refused by their header: 67 million pixels, 200 MB when decoded."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Of files that are looked at as images."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_PNG_END = b"IEND\xae\x42\x60\x82"
# What Pillow's decoders raise on bytes that are no image, besides its own errors.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, struct.error, zlib.error)


class Picture(ABC):
    """Something that can be looked at: a file, or a picture that we draw."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The file, or what stands for it, in errors."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width, without decoding."""

    @abstractmethod
    def read(self) -> UInt8[np.ndarray, "H W *C"]:
        """``(H, W, 3)`` RGB of an image; ``(H, W)`` train ids of a label. Not to be written to.

        Raises:
            InputError: it cannot be read, or is not what it should be.
        """

    @abstractmethod
    def digest(self) -> bytes:
        """Of everything that decides :meth:`read`."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded.

    Attributes:
        size: height and width as stored.
        mode: Pillow's name of the pixel form, such as ``RGB``, ``P``, ``CMYK``.
        format: ``PNG``, ``JPEG``, …
        deep: more than 8 bits a channel.
        orientation: EXIF; 1 is upright.
    """

    size: tuple[int, int]
    mode: str
    format: str
    deep: bool
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width once it is turned upright."""
        height, width = self.size
        return (width, height) if self.orientation in _TURNED else (height, width)


@dataclass(frozen=True)
class ImageFile(Picture):
    """An image on disk."""

    path: Path

    @property
    def where(self) -> str:
        """The path."""
        return str(self.path)

    @cached_property
    def header(self) -> Header:
        """Read once."""
        return read_header(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return self.header.upright

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """Upright 8-bit RGB."""
        return read_image(self.path)

    def digest(self) -> bytes:
        """Of the file's content."""
        return file_digest(self.path)


@dataclass(frozen=True)
class LabelFile(Picture):
    """A label on disk, with the map from its values to train ids."""

    path: Path
    labels: LabelMap

    @property
    def where(self) -> str:
        """The path."""
        return str(self.path)

    @cached_property
    def header(self) -> Header:
        """Read once."""
        return read_header(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.header.size

    def values(self) -> NDArray[Any]:
        """``(H, W)`` ids or ``(H, W, 3)`` colours, as stored."""
        return read_last_channel(self.path) if self.labels.last_channel else read_values(self.path)

    def read(self) -> UInt8[np.ndarray, "H W"]:
        """Train ids; :data:`.classes.IGNORE` where nothing is labelled."""
        return self.labels.decode(self.values(), self.where)

    def digest(self) -> bytes:
        """Of the file's content and the map."""
        maps = repr((sorted(self.labels.ids.items()), sorted(self.labels.colours.items()), self.labels.last_channel))
        return hashlib.sha256(file_digest(self.path) + maps.encode()).digest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error


def read_header(path: Path) -> Header:
    """Size and pixel form of a file, without decoding it.

    Raises:
        InputError: no image, or one of more than :data:`MAX_PIXELS`.
    """
    with _opened(path) as image:
        return _header(image, path)


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """An upright 8-bit RGB image.

    Raises:
        InputError: no image, a truncated or too large one, CMYK, more than 8 bits, or transparent pixels.
    """
    where = str(path)
    with _opened(path) as image:
        header = _header(image, path)
        refuse_form(header, where)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image) if header.orientation != 1 else image
            return _rgb(upright, where)
        except InputError:
            raise
        except _BROKEN as error:
            raise _broken(error, path) from error


def refuse_form(header: Header, where: str) -> None:
    """Refuse an image whose pixels are not 8-bit red, green and blue, or grey.

    Raises:
        InputError: CMYK, more than 8 bits, or a form that Pillow knows and we do not.
    """
    if header.mode == "CMYK":
        raise InputError(
            "the image is CMYK, made for printing",
            where=where,
            mend="convert it to RGB (magick IN -colorspace sRGB OUT)",
        )
    if header.deep:
        mend = "convert it to 8 bits by a rule of your own (magick IN -depth 8 OUT halves nothing but precision)"
        raise InputError("the image has more than 8 bits a channel", where=where, mend=mend)
    if header.mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
        raise InputError(f"the image's pixels are {header.mode}", where=where, mend="convert it to RGB")


def read_values(path: Path) -> NDArray[Any]:
    """A label as stored: ``(H, W)`` ids of a file with one channel, ``(H, W, 3)`` colours of one with three.

    The index of a palette image is the id. Alpha is dropped where it is opaque.

    Raises:
        InputError: no image, a truncated or too large one, JPEG, a form without a meaning, or transparent pixels.
    """
    where = str(path)
    with _opened(path) as image:
        header = _header(image, path)
        if header.format in ("JPEG", "MPO"):
            raise InputError("a label cannot be JPEG, which changes values", where=where, mend="save it as PNG")
        if header.deep and header.mode in ("RGB", "RGBA"):
            raise InputError("the label has 16 bits a colour", where=where, mend="save ids in one channel")
        try:
            image.load()
            if header.mode in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                return np.asarray(image.convert("L") if header.mode == "1" else image) // (
                    255 if header.mode == "1" else 1
                )
            if header.mode in ("RGB", "RGBA"):
                return _rgb(image, where)
        except InputError:
            raise
        except _BROKEN as error:
            raise _broken(error, path) from error
    mend = "save ids in one channel, or colours in three"
    raise InputError(f"the label's pixels are {header.mode}", where=where, mend=mend)


def read_last_channel(path: Path) -> NDArray[Any]:
    """``(H, W)`` the last channel of a PNG, read unchanged in OpenCV's order (blue, green, red): Synthia's labels.

    Raises:
        InputError: no such image, or OpenCV is not installed.
    """
    from core.command import require

    header = read_header(path)  # refuses what is no image or too large before OpenCV allocates for it
    require("cv2", "segmentation")
    import cv2

    content = np.fromfile(path, dtype=np.uint8)
    if _PNG_END not in content[-64:].tobytes():  # OpenCV would give what there is of it
        raise InputError("is truncated or broken (it has no end)", where=str(path), mend="copy or save it again")
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[:2] != header.size:
        what = "the label is not a PNG of three channels, as Synthia's are"
        raise InputError(what, where=str(path), mend="name the layout that it is of")
    values: NDArray[Any] = stored[..., -1]
    return values


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        raise InputError(
            "is no image, or its beginning is broken", where=str(path), mend="copy or save it again"
        ) from error
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except _BROKEN as error:
        raise _broken(error, path) from error


def _too_large(path: Path, size: str = "") -> InputError:
    what = f"the image has {size or 'far too many pixels'}, more than {MAX_PIXELS // 10**6} million pixels"
    return InputError(what, where=str(path), mend="cut it into tiles")


def _broken(error: BaseException, path: Path) -> InputError:
    return InputError(f"is truncated or broken ({error})", where=str(path), mend="copy or save it again")


def _header(image: Image.Image, path: Path) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} x {height}")
    if not width * height:
        raise InputError("the image is empty", where=str(path))
    # Pillow opens 16-bit colour as 8-bit RGB; only the name of its raw form tells, until the image is decoded.
    deep = image.mode.startswith(("I", "F")) or ";16" in repr(getattr(image, "tile", ""))
    return Header((height, width), image.mode, image.format or "", deep, _orientation(image))


def _orientation(image: Image.Image) -> int:
    # A PNG without the note would be decoded to look for it at its end; Pillow turns a TIFF itself.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # a broken note about the picture does not break the picture
    return found if found in range(2, 9) else 1


def _rgb(image: Image.Image, where: str) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if isinstance(lowest, (int, float)) and lowest < 255:
            raise InputError("has transparent pixels", where=where, mend="flatten it onto a background")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
