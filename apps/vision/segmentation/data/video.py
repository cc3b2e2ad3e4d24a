"""Videos, read and written by OpenCV: one frame in memory at a time.

A video is measured before it is taken: its first frame is decoded, and its packets are counted without decoding and
compared with what its container says, because OpenCV gives the readable part of a truncated file without an error. MP4
and AVI say how many there are; the others a duration, of which the last second may be without a frame. Packets and not
frames, as a file that was cut by time stores more than it shows. Frames come turned upright.

What is written is MPEG-4 (``mp4v``), which every build of OpenCV from the package index can encode and most players
show; H.264 it can read only. The codec halves colour, so that a side that is odd loses its last row or column of
pixels. There is no sound.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from apps.vision.segmentation.data.pictures import MAX_PIXELS
from core.artefact import replacing
from core.command import require
from core.errors import InputError

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv")
"""Of files that are taken for videos."""
CODEC, SUFFIX = "mp4v", ".mp4"
"""Of what is written."""
_FASTEST = 1000.0
"""Frames a second; more are a clock's ticks and no rate."""
Frame = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Clip:
    """A video that was measured.

    Attributes:
        path: the file.
        size: rows and columns of an upright frame.
        rate: frames a second.
        frames: how many it holds.
    """

    path: Path
    size: tuple[int, int]
    rate: float
    frames: int


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video, by its name.

    >>> is_video(Path("clip.MP4")), is_video(Path("clip.png"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES


def read_clip(path: Path) -> Clip:
    """Size, rate and number of frames.

    Raises:
        InputError: no video, none that OpenCV reads, a truncated one, or one without a frame or a rate.
    """
    cv2 = _opencv()
    with _opened(path) as capture:
        rate, said = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        there, frame = capture.read()
    found, last = _packets(path)
    if not there or not found:
        raise InputError("a video without a frame", where=str(path), mend="copy or save it again")
    if not 0 < rate <= _FASTEST:
        mend = "save it again with a constant rate (ffmpeg -i IN -r 25 OUT)"
        raise InputError(f"says no rate of its frames ({rate:g} a second)", where=str(path), mend=mend)
    if found < said and (_counts(path) or said / rate - last > 1.0 + 1.0 / rate):
        what = f"is truncated or broken (it holds {found:,} of {said:,.0f} frames)"
        raise InputError(what, where=str(path), mend="copy or save it again")
    height, width = frame.shape[:2]
    if height * width > MAX_PIXELS:
        raise InputError(f"its frames have {width} x {height} pixels, which are too many", where=str(path))
    return Clip(path, (height, width), float(rate), found)


def read_frames(clip: Clip) -> Iterator[Frame]:
    """Upright RGB frames in order, as they are needed.

    Raises:
        InputError: it cannot be opened any more, or a frame has another size than the first.
    """
    cv2 = _opencv()
    with _opened(clip.path) as capture:
        number = 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            if frame.shape[:2] != clip.size:
                (height, width), (rows, columns) = clip.size, frame.shape[:2]
                what = f"frame {number} has {columns} x {rows} pixels, the first {width} x {height}"
                raise InputError(what, where=str(clip.path), mend="cut it where the size changes")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1


@contextmanager
def writing(path: Path, size: tuple[int, int], rate: float) -> Iterator[Callable[[Frame], None]]:
    """Gives a function that adds a frame to a video; it has its name once it is whole, and not where the block raises.

    Args:
        path: ends in :data:`SUFFIX`.
        size: rows and columns of every frame.
        rate: frames a second.

    Raises:
        InputError: OpenCV cannot encode, or the file cannot be written.
    """
    cv2, written = _opencv(), 0
    with replacing(path) as temporary:
        code = cv2.VideoWriter_fourcc(*CODEC)
        writer = cv2.VideoWriter(str(temporary.absolute()), cv2.CAP_FFMPEG, code, rate, (size[1], size[0]))

        def write(frame: Frame) -> None:
            nonlocal written
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            written += 1

        try:
            if not writer.isOpened():
                mend = "install opencv-python from the package index, or look whether the folder can be written to"
                raise InputError(f"OpenCV cannot write video ({CODEC}) there", where=str(path), mend=mend)
            yield write
        finally:
            writer.release()
        # OpenCV says nothing of a full disk.
        if not temporary.is_file() or _packets(temporary)[0] != written:
            mend = "free some space or choose another folder"
            raise InputError(f"not all of {written:,} frames could be written", where=str(path), mend=mend)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A capture; the name is made absolute, as FFmpeg takes what stands before a colon for a protocol."""
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            mend = "copy it again, or save it as MP4 (ffmpeg -i IN OUT.mp4)"
            raise InputError("is no video that OpenCV reads, or it is truncated", where=str(path), mend=mend)
        yield capture
    finally:
        capture.release()


def _packets(path: Path) -> tuple[int, float]:
    """How many there are, and the second of the last; none is decoded."""
    cv2, count, last = _opencv(), 0, 0.0
    with _opened(path) as capture:
        capture.set(cv2.CAP_PROP_FORMAT, -1)
        while capture.grab():
            count, last = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
    return count, last


def _counts(path: Path) -> bool:
    """Whether the container says how many frames there are, and not only for how long."""
    with path.open("rb") as file:
        head = file.read(8)
    return head[:4] == b"RIFF" or head[4:] == b"ftyp"


def _opencv() -> Any:
    """OpenCV, its own messages on standard error switched off: what is wrong is said here, in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2 = require("cv2", "segmentation")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
