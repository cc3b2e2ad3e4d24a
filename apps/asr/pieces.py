"""Recordings to pieces of audio that fit through the network, read one after the other, and pieces to batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from apps.asr.data.audio import SAMPLE_RATE, part_of, read_audio, samples_at_rate
from apps.asr.data.header import check_file, not_audio, read_header, soundfile
from apps.asr.data.manifest import Utterance
from apps.asr.windows import FRAME, GRID, windows
from core.errors import InputError

Source = Utterance | str | os.PathLike[str] | Float[Tensor, " _"]
"""A recording: a part of a file, a file, or samples at 16 kHz in [-1, 1]."""


@dataclass(frozen=True)
class Piece:
    """One window of a recording.

    Attributes:
        audio: samples at 16 kHz.
        first, last: its output frames to keep; ``last`` is None for all that there are.
        ends: samples of the whole recording, where this is its last piece; None elsewhere.
    """

    audio: Float[Tensor, " N"]
    first: int
    last: int | None
    ends: int | None


def pieces(
    recordings: Iterable[Source], *, window: float = 30.0, context: float = 4.8, pad_seconds: float = 0.0
) -> Iterator[Piece]:
    """The pieces of each recording, in order, read when they are asked for.

    Args:
        recordings: files, parts of files, or samples.
        window, context: seconds, see :func:`.windows.windows`.
        pad_seconds: silence put before and after a recording, in whole output frames.

    Raises:
        InputError: a recording cannot be read.
    """
    pad = round(pad_seconds * SAMPLE_RATE)
    for source in recordings:
        recording = _open(source)
        spans = windows(recording.samples, length=window, context=context)
        for span in spans:
            audio = recording.read(span.start, span.stop)
            # What was there, not what the header promised.
            ends = span.start + len(audio) if span is spans[-1] else None
            shift = 0
            if pad and len(audio):
                shift = pad if span is spans[0] else 0
                audio = torch.nn.functional.pad(audio, (shift, 0 if ends is None else pad))
            last = None if span.last is None else span.last + shift // FRAME
            yield Piece(audio, span.first, last, ends)


def pools(read: Iterable[Piece], limit: int) -> Iterator[list[Piece]]:
    """Consecutive pieces of at most ``limit`` samples, or a single longer one."""
    pool: list[Piece] = []
    total = 0
    for piece in read:
        if pool and total + len(piece.audio) > limit:
            yield pool
            pool, total = [], 0
        pool.append(piece)
        total += len(piece.audio)
    if pool:
        yield pool


def batches(lengths: list[int], limit: int) -> list[list[int]]:
    """Indices in batches of like length, whose padded total is at most ``limit``; a longer one is by itself.

    >>> batches([5, 1, 9, 2], limit=10)
    [[1, 3], [0], [2]]
    """
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if found and (len(found[-1]) + 1) * lengths[index] <= limit:
            found[-1].append(index)
        else:
            found.append([index])
    return found


@dataclass(frozen=True)
class _Signal:
    """Samples in memory."""

    audio: Float[Tensor, " N"]

    @property
    def samples(self) -> int:
        return len(self.audio)

    def read(self, start: int, stop: int) -> Float[Tensor, " N"]:
        return self.audio[start:stop]


@dataclass(frozen=True)
class _File:
    """A part of a file of a rate at which every window begins on a sample of its own."""

    utterance: Utterance
    rate: int
    first: int
    last: int

    @property
    def samples(self) -> int:
        return samples_at_rate(self.last - self.first, self.rate)

    def read(self, start: int, stop: int) -> Float[Tensor, " N"]:
        first = self.first + start * self.rate // SAMPLE_RATE
        last = min(self.last, self.first + stop * self.rate // SAMPLE_RATE)
        return read_audio(replace(self.utterance, start=first, stop=self.last if stop >= self.samples else last))


def _open(source: Source) -> _Signal | _File:
    if isinstance(source, Tensor):
        if source.ndim != 1 or not source.is_floating_point():
            raise InputError(f"samples of shape {tuple(source.shape)} and type {source.dtype}", mend="give (N,) floats")
        return _Signal(source.float())
    utterance = source if isinstance(source, Utterance) else Utterance.of_file(Path(source))
    check_file(utterance.path)
    if _is_silent(utterance.path):
        return _Signal(torch.zeros(0))
    header = read_header(utterance.path)
    if GRID * header.rate % SAMPLE_RATE:
        return _Signal(read_audio(utterance))
    return _File(utterance, header.rate, *part_of(utterance, header))


def _is_silent(path: Path) -> bool:
    """A whole file, of no samples: nothing to train on, but nothing was said either."""
    module = soundfile()
    try:
        return bool(module.info(str(path)).frames == 0)
    except module.LibsndfileError as error:
        raise not_audio(path, error) from error
