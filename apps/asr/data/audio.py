"""Recordings to 16 kHz mono, and a memory of what was decoded.

Channels are averaged; other rates are resampled (:mod:`apps.asr.data.resample`). Reading goes
through libsndfile (WAV, FLAC, Ogg Vorbis and Opus, MP3). Whatever is read is rounded to 16 bits, the resolution of
nearly all speech corpora, so that what comes from the memory is exactly what comes from the disk.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from apps.asr.data.header import Header, check_file, check_header, not_audio, read_header, soundfile
from apps.asr.data.manifest import Utterance
from apps.asr.data.resample import resample
from core.errors import InputError

SAMPLE_RATE = 16_000
"""Samples a second of everything after reading."""
STORE_BYTES = 2 * 1024**3

_FULL_SCALE = 32_768
_LOUDEST = 4.0
"""Samples of a float file may overshoot 1; values beyond this are on another scale."""
_FINEST_RATIO = 1000
"""Largest term of a ratio of rates: the filter bank grows with it, and 22 051 : 16 000 would fill the memory."""

_T = TypeVar("_T")
Progress = Callable[[int, int], None]
"""Called with how many of how many are done."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Audio as it was recorded.

    Attributes:
        samples: ``(frames, channels)`` float32, full scale 1.
        rate: samples a second.
    """

    samples: NDArray[np.float32]
    rate: int


def decode(utterance: Utterance) -> Recording:
    """The audio of an utterance at its own rate, all channels.

    Raises:
        InputError: missing, unreadable, cut off, without samples, not finite or not scaled; names the file.
    """
    path = utterance.path
    check_file(path)
    module = soundfile()
    try:
        with module.SoundFile(str(path)) as file:
            header = Header(file.samplerate, file.frames, file.channels)
            check_header(header, path)
            first, last = part_of(utterance, header)
            if first:
                file.seek(first)
            samples: NDArray[np.float32] = file.read(last - first, dtype="float32", always_2d=True)
    except (module.SoundFileError, RuntimeError, MemoryError) as error:
        raise not_audio(path, error) from error
    if len(samples) < last - first:
        what = f"cut off: {len(samples)} of {last - first} samples can be read"
        raise InputError(what, where=str(path), mend="copy it again")
    _check_values(samples, path)
    return Recording(samples, header.rate)


def _check_values(samples: NDArray[np.float32], path: Path) -> None:
    peak = float(np.abs(samples).max())
    if not math.isfinite(peak):
        bad = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise InputError(f"sample {bad} is not a finite number", where=str(path), mend="write it again as 16-bit PCM")
    if peak > _LOUDEST:
        mend = "divide it by its full scale, or write it as 16-bit PCM"
        raise InputError(f"samples reach {peak:.4g} where full scale is 1", where=str(path), mend=mend)


def part_of(utterance: Utterance, header: Header) -> tuple[int, int]:
    """First frame of an utterance and the one after its last, in the file's own samples.

    Raises:
        InputError: it goes beyond the end of the file.
    """
    first, last = utterance.start, header.frames if utterance.stop is None else utterance.stop
    if last > header.frames or first >= header.frames:
        what = f"samples {first} to {last} are wanted, and the file holds {header.frames}"
        raise InputError(what, where=str(utterance.path), mend="is it cut off, or are the bounds at another rate?")
    return first, last


def ratio(rate: int) -> tuple[int, int]:
    """(samples before, samples after) of going to :data:`SAMPLE_RATE`; within 0.06 % for odd rates.

    >>> ratio(44_100), ratio(8_000)
    ((441, 160), (1, 2))
    """
    terms = Fraction(SAMPLE_RATE, rate).limit_denominator(_FINEST_RATIO)
    return terms.denominator, terms.numerator


def samples_at_rate(frames: int, rate: int, pad_seconds: float = 0.0) -> int:
    """How many samples :func:`read_audio` gives for so many at another rate.

    >>> samples_at_rate(8001, 8000)
    16002
    """
    before, after = ratio(rate)
    return -(-frames * after // before) + 2 * padding(pad_seconds)


def padding(seconds: float) -> int:
    """Samples of quiet before, and as many after."""
    return round(seconds * SAMPLE_RATE)


def resampled(recording: Recording) -> NDArray[np.float32]:
    """One channel at :data:`SAMPLE_RATE`, ``(T,)``."""
    return resample(np.ascontiguousarray(recording.samples.mean(axis=1)), *ratio(recording.rate))


def read_audio(utterance: Utterance, *, pad_seconds: float = 0.0) -> Float[Tensor, " T"]:
    """The audio of an utterance: float32, mono, 16 kHz, within [-1, 1], in steps of 2**-15.

    Args:
        utterance: see :meth:`Utterance.of_file` for a plain file.
        pad_seconds: silence put before and after, for clips trimmed so tightly that the first sound has no onset.

    Raises:
        InputError: anything wrong with the file, which it names.
    """
    return _to_float(_read16(utterance, pad_seconds))


def _read16(utterance: Utterance, pad_seconds: float) -> NDArray[np.int16]:
    return to_16_bits(resampled(decode(utterance)), pad_seconds)


def to_16_bits(audio: NDArray[np.float32], pad_seconds: float = 0.0) -> NDArray[np.int16]:
    """Rounded, clamped and padded."""
    rounded = np.rint(audio * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    return np.pad(rounded, padding(pad_seconds)) if pad_seconds else rounded


def _to_float(samples: NDArray[np.int16]) -> Float32[Tensor, " T"]:
    return torch.from_numpy(samples.astype(np.float32) / np.float32(_FULL_SCALE))


class AudioStore:
    """Reads utterances, and keeps what it decoded as int16 up to a limit, so that later epochs decode nothing.

    What is kept is never given up for something newer: an epoch visits everything once, and a memory of the most
    recent would miss every time. Threads may share a store. Worker processes that are forked from here share what is
    held by then, so :meth:`preload` first; what they decode themselves stays with them.

    Args:
        pad_seconds: as for :func:`read_audio`.
        limit_bytes: how much to hold; 0 holds nothing.
    """

    def __init__(self, *, pad_seconds: float = 0.0, limit_bytes: int = STORE_BYTES) -> None:
        if not 0 <= pad_seconds <= 10:
            raise InputError(f"{pad_seconds} seconds", where="pad_seconds", mend="choose 0 to 10")
        self.pad_seconds, self.limit_bytes = pad_seconds, limit_bytes
        self._held: dict[tuple[Path, int, int | None], NDArray[np.int16]] = {}
        self._lengths: dict[tuple[Path, int, int | None], int] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getitem__(self, utterance: Utterance) -> Float32[Tensor, " T"]:
        """As :func:`read_audio`, a tensor of the caller's own."""
        held = self._held.get(utterance.segment)
        return _to_float(self._keep(utterance, _read16(utterance, self.pad_seconds)) if held is None else held)

    def __contains__(self, utterance: object) -> bool:
        return isinstance(utterance, Utterance) and utterance.segment in self._held

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._bytes

    def put(self, utterance: Utterance, recording: Recording) -> None:
        """Take over what someone else decoded, where there is room for it."""
        samples = samples_at_rate(len(recording.samples), recording.rate, self.pad_seconds)
        self._lengths[utterance.segment] = samples
        if utterance not in self and self._bytes + 2 * samples <= self.limit_bytes:
            self._keep(utterance, to_16_bits(resampled(recording), self.pad_seconds))

    def samples(self, utterance: Utterance) -> int:
        """T of an utterance, from the file's header where it has not been read yet.

        Raises:
            InputError: the header cannot be read.
        """
        if utterance.segment not in self._lengths:
            header = read_header(utterance.path)
            first, last = part_of(utterance, header)
            self._lengths[utterance.segment] = samples_at_rate(last - first, header.rate, self.pad_seconds)
        return self._lengths[utterance.segment]

    def preload(self, utterances: Sequence[Utterance], progress: Progress | None = None) -> None:
        """Decode everything that fits, in as many threads as there are processors.

        Raises:
            InputError: the first utterance, in their order, that cannot be read.
        """
        for done, _ in enumerate(in_threads(self._load, utterances), start=1):
            if progress is not None:
                progress(done, len(utterances))

    def _load(self, utterance: Utterance) -> None:
        if utterance not in self and self._bytes < self.limit_bytes:
            self._keep(utterance, _read16(utterance, self.pad_seconds))

    def _keep(self, utterance: Utterance, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        with self._lock:
            self._lengths[utterance.segment] = len(samples)
            if utterance.segment not in self._held and self._bytes + samples.nbytes <= self.limit_bytes:
                self._held[utterance.segment] = samples
                self._bytes += samples.nbytes
        return samples

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def in_threads(function: Callable[[Utterance], _T], utterances: Sequence[Utterance]) -> Iterator[_T]:
    """``function`` of each utterance, in their order; decoding leaves Python, so that threads run side by side."""
    threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(function, utterances)
        finally:
            pool.shutdown(cancel_futures=True)
