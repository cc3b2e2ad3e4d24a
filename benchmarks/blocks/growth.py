"""How the time grows with the length: the exponent of a power law, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Exponent:
    """The slope of log seconds over log tokens with its interval."""

    value: float
    low: float
    high: float


def exponent(seconds: Mapping[int, Sequence[float]]) -> Exponent:
    """Least squares through the median times of each length.

    The interval is of resampled rounds, of each length by themselves, as these were measured at different times.

    Args:
        seconds: of every round, by length; two lengths or more.

    >>> exponent({1000: [1.0, 1.0], 2000: [4.0, 4.0], 4000: [16.0, 16.0]})
    Exponent(value=2.0, low=2.0, high=2.0)
    """
    lengths = sorted(seconds)
    x = np.log(np.array(lengths, dtype=np.float64))
    generator = np.random.default_rng(0)
    drawn = [_medians(np.array(seconds[length]), generator) for length in lengths]
    slopes = _slope(x, np.log(np.stack(drawn, axis=-1)))
    value = _slope(x, np.log([[float(np.median(seconds[length])) for length in lengths]]))[0]
    low, high = np.quantile(slopes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Exponent(*(round(float(number), 6) for number in (value, low, high)))


def _medians(rounds: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Medians of resampled rounds."""
    return np.asarray(np.median(generator.choice(rounds, (RESAMPLES, len(rounds))), axis=-1), dtype=np.float64)


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the line through the points of each row of ``y``."""
    centred = x - x.mean()
    return np.asarray(y @ centred / (centred @ centred))
