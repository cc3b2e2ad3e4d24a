"""Which numbers a dropout keeps, drawn four at a time.

A dropout of probability p keeps each number with probability 1 - p and divides the kept ones by it. torch draws one
random number of its generator for each decision; on a processor that, not the multiplication, is the cost of attention
dropout. Sixteen random bits decide as well: a 64-bit draw serves four numbers.

    t = round(65536 p)      kept: the 16 bits, read as a number in [0, 65536), are >= t      scale = 65536 / (65536 - t)

The probability is thereby rounded to a multiple of 1/65536, and the scale belongs to the rounded one, so that the
expectation of ``mask * scale`` is exactly 1. Draws come from torch's global generator. :func:`dropout` and
:class:`Dropout` multiply with them; both are torch's own where the fast form does not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

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


def dropout(x: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """``x`` with each number set to zero with probability p, and the others scaled to make up for it.

    Raises:
        InputError: p outside [0, 1).

    >>> sorted(set(dropout(torch.ones(1000), 0.5).tolist()))
    [0.0, 2.0]
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    keep, scale = keep_mask(x.shape, p, x.device)
    return x * keep.to(x.dtype).mul_(scale)


class Dropout(nn.Module):
    """:func:`dropout` in training, nothing otherwise.

    Args:
        p: probability of dropping a number, in [0, 1).

    >>> Dropout(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise InputError(f"dropout {p} is outside [0, 1)")
        self.p = p

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop numbers of ``x``."""
        return dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        """p, for ``print(module)``."""
        return f"p={self.p}"
