"""Which numbers a dropout keeps, drawn four at a time.

A dropout of probability p keeps each number with probability 1 - p and divides the kept ones by it. torch draws one
random number of its generator for each decision; on a processor that, not the multiplication, is the cost of attention
dropout. Sixteen random bits decide as well: a 64-bit draw serves four numbers.

    t = round(65536 p)      kept: the 16 bits, read as a number in [0, 65536), are >= t      scale = 65536 / (65536 - t)

The probability is thereby rounded to a multiple of 1/65536, and the scale belongs to the rounded one, so that the
expectation of ``mask * scale`` is exactly 1. Draws come from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from core.errors import InputError

_STEPS = 1 << 16


def keep_mask(shape: Sequence[int], p: float, device: torch.device) -> tuple[Bool[Tensor, "..."], float]:
    """A mask that is True with probability 1 - p, and the factor that makes up for what is dropped.

    Args:
        shape: of the mask.
        p: probability of dropping, in [0, 1).
        device: where the mask is wanted; the fast form is for the processor, elsewhere the reference runs.

    Raises:
        InputError: p outside [0, 1), or so near to 1 that nothing would be kept.

    >>> mask, scale = keep_mask((100, 100), 0.25, torch.device("cpu"))
    >>> scale, 0.7 < mask.float().mean() < 0.8
    (1.3333333333333333, tensor(True))
    """
    if device.type != "cpu":
        return keep_mask_reference(shape, p, device)
    dropped = round(p * _STEPS)
    if not 0 <= dropped < _STEPS:
        raise InputError(f"dropout {p} is outside [0, 1)")
    count = math.prod(shape)
    # The whole range of 64 bits but its last number, whose absence no one can see.
    words = torch.randint(-(2**63), 2**63 - 1, (-(-count // 4),), dtype=torch.int64)
    bits = words.view(torch.int16)[:count].view(tuple(shape))
    return bits >= dropped - _STEPS // 2, _STEPS / (_STEPS - dropped)


def keep_mask_reference(shape: Sequence[int], p: float, device: torch.device) -> tuple[Bool[Tensor, "..."], float]:
    """The same by torch's own draws, one a number, with p as it is."""
    if not 0.0 <= p < 1.0:
        raise InputError(f"dropout {p} is outside [0, 1)")
    return torch.empty(tuple(shape), device=device).bernoulli_(1.0 - p).bool(), 1.0 / (1.0 - p)
