"""What a recording says of itself before it is decoded, and whether the file is as long as it says.

libsndfile opens a cut-off WAV or Ogg file as if it were a shorter one. So the length that the file declares is compared
with the bytes that are there: the size of the ``data`` chunk in RIFF/WAVE, and the size of the last page in Ogg
(RFC 3533, section 6). FLAC and MP3 show it when they are decoded.
"""

from __future__ import annotations

import importlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from core.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
MAX_VALUES = 2**31
"""Frames times channels beyond which a file is not opened: a header may promise more than there is memory."""

_UNKNOWN_SIZE = 0x7FFF_F000
"""Programs that write WAV to a pipe put a size from here on, as they do not know it."""
_OGG_PAGE = 65_307
"""Bytes of the longest possible page."""


@dataclass(frozen=True)
class Header:
    """Length and shape of a recording.

    Attributes:
        rate: samples a second.
        frames: samples a channel.
        channels: how many.
    """

    rate: int
    frames: int
    channels: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.rate


def soundfile() -> ModuleType:
    """The soundfile module.

    Raises:
        InputError: it, or the libsndfile it needs, is not installed.
    """
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError) as error:
        mend = 'pip install "manyformer[asr]"'
        raise InputError("reading recordings needs soundfile, which is not installed", mend=mend) from error


def read_header(path: str | Path) -> Header:
    """The header of a recording in any format of libsndfile.

    Raises:
        InputError: missing, a folder, empty, not audio, cut off, or of a shape nobody records.
    """
    path = Path(path)
    check_file(path)
    module = soundfile()
    try:
        info = module.info(str(path))
    except module.LibsndfileError as error:
        raise not_audio(path, error) from error
    header = Header(int(info.samplerate), int(info.frames), int(info.channels))
    check_header(header, path)
    return header


def check_file(path: Path) -> None:
    """Refuse what is not a file with all of its bytes.

    Raises:
        InputError: missing, a folder, empty, or cut off.
    """
    if path.is_dir():
        raise InputError("a folder where a recording is needed", where=str(path))
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise InputError("a pipe or a device where a recording is needed", where=str(path))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cut = _cut_off(file, size)
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if size == 0:
        raise InputError("the file is empty (0 bytes)", where=str(path), mend="copy it again")
    if cut:
        raise InputError("cut off: the file ends before the audio does", where=str(path), mend="copy it again")


def check_header(header: Header, path: Path) -> None:
    """Refuse lengths and rates that nothing can be done with.

    Raises:
        InputError: no samples, far too many, or an absurd rate.
    """
    if header.frames == 0:
        raise InputError("holds no samples", where=str(path), mend="leave it out")
    if not LOWEST_RATE <= header.rate <= HIGHEST_RATE:
        what = f"{header.rate} samples a second, outside {LOWEST_RATE} to {HIGHEST_RATE}"
        raise InputError(what, where=str(path), mend="is its header right?")
    if header.frames * header.channels > MAX_VALUES:
        what = f"says it lasts {header.seconds / 3600:,.1f} hours on {header.channels} channels"
        raise InputError(what, where=str(path), mend="cut it into shorter files")


def not_audio(path: Path, error: Exception) -> InputError:
    """What to say when libsndfile gives up: its reason without our path."""
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".").removeprefix("Error : ")
    return InputError(
        f"cannot be decoded ({reason})", where=str(path), mend="convert it to WAV or FLAC, or copy it again"
    )


def _cut_off(file: BinaryIO, size: int) -> bool:
    """Whether the container promises bytes that are not there."""
    start = file.read(12)
    if start[:4] in (b"RIFF", b"RIFX") and start[8:] == b"WAVE":
        return _wave_cut_off(file, size, ">" if start[:4] == b"RIFX" else "<")
    if start[:4] == b"OggS":
        return _ogg_cut_off(file, size)
    return False


def _wave_cut_off(file: BinaryIO, size: int, order: str) -> bool:
    while len(head := file.read(8)) == 8:
        length = struct.unpack(order + "I", head[4:])[0]
        if head[:4] == b"data":
            return bool(length < _UNKNOWN_SIZE and file.tell() + length > size)
        file.seek(length + length % 2, os.SEEK_CUR)  # chunks start at even positions
    return True


def _ogg_cut_off(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - _OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
