"""What a recording sounds like, in numbers: level, clipping, channels that cancel.

``rms`` and ``peak`` are of the average of the channels, full scale 1. A sample is clipped when it lies in a run of
three or more at full scale: speech reaches it for a moment, and only a converter at its limit stays there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.asr.data.audio import Recording

_FULL = 0.999
_RUN = 3
SILENT = 10 ** (-75 / 20)
"""Peaks below: nothing but the noise of the last bits."""
QUIET = 10 ** (-55 / 20)
"""Mean levels (RMS) below: speech of 16 bits has lost a good part of them."""
CLIPPED = 0.001
"""Shares of clipped samples above are audible."""


@dataclass(frozen=True)
class Measures:
    """Of one recording.

    Attributes:
        rate: samples a second.
        frames: samples a channel.
        channels: how many.
        peak: largest absolute value.
        rms: root of the mean square.
        clipped: share of samples.
        cancelling: the channels hold sound, and their average does not.
    """

    rate: int
    frames: int
    channels: int
    peak: float
    rms: float
    clipped: float
    cancelling: bool

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.rate

    @property
    def silent(self) -> bool:
        """Nothing is to be heard."""
        return self.peak < SILENT


def measure(recording: Recording) -> Measures:
    """Measure a recording.

    >>> tone = np.sin(np.arange(1600, dtype=np.float32))[:, None]
    >>> round(measure(Recording(tone, 16_000)).rms, 2), measure(Recording(0 * tone, 16_000)).silent
    (0.71, True)
    """
    samples = recording.samples
    mono = samples.mean(axis=1)
    peak = float(np.abs(mono).max())
    return Measures(
        recording.rate,
        len(samples),
        samples.shape[1],
        peak,
        float(np.sqrt(np.square(mono, dtype=np.float64).mean())),
        float(max(_clipped(channel) for channel in samples.T)),
        peak < SILENT < float(np.abs(samples).max()) / 10,
    )


def _clipped(channel: NDArray[np.float32]) -> float:
    """Share of the samples in runs at full scale; a run keeps its sign."""
    total = 0
    for full in (channel >= _FULL, channel <= -_FULL):
        if not full.any():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= _RUN].sum())
    return total / len(channel)
