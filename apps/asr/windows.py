"""Long recordings in windows: where each begins, and which of its frames are kept.

Attention reads everything, so its memory grows with the square of the length. A recording longer than a window is
recognised in windows that overlap; of each, the middle is kept and the context at its cut ends is thrown away. Windows
begin on multiples of 80 ms (1280 samples), the coarsest grid of the encoder, so that their frames of 40 ms (640
samples) are those of the whole; the frames kept are strung together and decoded once. Each window is normalised by
itself, as an utterance of training is.

The last window reaches back, so that it is as long as the others; where two overlap, the boundary is in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from core.errors import InputError

GRID, FRAME = 1280, 640
"""Samples: where windows may begin, and the step of an output frame."""


@dataclass(frozen=True)
class Window:
    """Samples ``start`` to ``stop`` of a recording, of whose output frames ``first`` to ``last`` are kept.

    Attributes:
        start, stop: samples at 16 kHz; ``stop`` may lie beyond the end.
        first, last: output frames, counted from ``start``; ``last`` is None for all that there are.
    """

    start: int
    stop: int
    first: int
    last: int | None


def windows(samples: int, *, length: float = 30.0, context: float = 4.8) -> list[Window]:
    """The windows of a recording.

    Args:
        samples: of the recording, at 16 kHz.
        length: seconds of a window; a recording that is not longer is one window.
        context: seconds at a cut end of which nothing is kept; less than half of ``length``.

    Raises:
        InputError: a context that leaves nothing to keep.

    >>> for window in windows(100 * 16_000, length=40.0, context=4.8):
    ...     print(window.start / 16_000, window.stop / 16_000, window.first, window.last)
    0.0 40.0 0 880
    30.4 70.4 120 870
    60.0 100.0 130 None
    """
    if not 0 <= context < length / 2 or _on_grid(length) <= 2 * _on_grid(context):
        raise InputError(f"a window of {length:g} s has no middle between contexts of {context:g} s", where="window")
    size, edge = _on_grid(length), _on_grid(context)
    if samples <= size:
        return [Window(0, samples, 0, None)]
    final = -(-(samples - size) // GRID) * GRID
    starts = [*range(0, final, size - 2 * edge), final]
    found, first = [], 0
    for start, following in pairwise(starts):
        boundary = following + (start + size - following) // (2 * FRAME) * FRAME
        found.append(Window(start, start + size, first, (boundary - start) // FRAME))
        first = (boundary - following) // FRAME
    return [*found, Window(final, final + size, first, None)]


def _on_grid(seconds: float) -> int:
    return round(seconds * 16_000 / GRID) * GRID
