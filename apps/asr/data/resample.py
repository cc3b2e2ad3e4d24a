"""Audio at another rate: a windowed sinc in polyphase form, ``scipy.signal.resample_poly``.

Not torchaudio's: between rates such as 44 100 and 16 000 its filter bank is mostly zeros, which costs ten times the
time, and torch's threads fight with those that decode.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32
from scipy.signal import firwin, resample_poly

ZEROS = 32
"""Zeros of the sinc on either side: -80 dB from 8 % beyond the lower of the two bands."""


def resample(
    audio: Float32[np.ndarray, " N"], before: int, after: int, *, zeros: int = ZEROS
) -> Float32[np.ndarray, " M"]:
    """``audio`` with ``after`` samples for each ``before``: M = N after / before, rounded up.

    Args:
        audio: one channel.
        before, after: the ratio of the rates in lowest terms.
        zeros: of the sinc on either side, in samples of the lower rate; the time grows with them, and the band that is
            neither kept nor removed shrinks.

    >>> resample(np.zeros(441, dtype=np.float32), 441, 160).shape
    (160,)
    """
    if before == after or not len(audio):
        return audio
    converted: Any = resample_poly(audio, after, before, window=_low_pass(max(before, after), zeros))
    return np.asarray(converted, dtype=np.float32)


@cache
def _low_pass(widest: int, zeros: int) -> Any:
    """A sinc under a Kaiser window, at the common multiple of the two rates."""
    return firwin(2 * zeros * widest + 1, 1 / widest, window=("kaiser", 8.0)).astype(np.float32)
