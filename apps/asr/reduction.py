"""The temporal U-Net of Squeezeformer: the middle blocks see every second token, the last ones all of them again.

Source: Kim et al. (NeurIPS 2022, arXiv 2206.00888) and the authors' program ``kssteven418/Squeezeformer``.

    reduce     y_i = P (sum_k w_k * x_(2i+k) + c) + p       k = 0 ... 4, zeros beyond the end;   N -> ceil(N/2)
    recover    z_j = s_j + R y_floor(j/2) + b               s = what reduction was given;        ceil(N/2) -> N

Token i of the reduced sequence reads the tokens 2i ... 2i+4. The convolution gives floor(N/2) tokens; for odd N one
token of zeros is appended, which the blocks then read and write like any other.

Both follow a recording's own length, never the batch's: of its n tokens floor(n/2) are computed, the next is zero if n
is odd, and ceil(n/2) are real. Deviation: the program appends zeros to the batch as a whole, so that the last token of
an odd recording is zero there or computed, depending on its neighbours; here it is what the program gives the recording
alone. Readings of the paper speak of a kernel of 3 [unverified]; the program has 5. R is applied before the repetition:
the same numbers, half of the products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from apps.asr.subsampling import zero_padding
from core.convolution import DepthwiseConv

KERNEL, STRIDE = 5, 2


def reduced_length(tokens: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Tokens that are left of so many: ceil(N/2).

    >>> reduced_length(torch.tensor([0, 1, 2, 3])).tolist()
    [0, 1, 1, 2]
    """
    return (tokens + 1) // 2


class TimeReduction(nn.Module):
    """Tokens ``(B,N,D)`` to half as many, ``(B,M,D)`` with M = ceil(N/2), by a depthwise-separable convolution.

    Args:
        width: D.

    >>> reduction = TimeReduction(8)
    >>> y = reduction(torch.randn(2, 5, 8), torch.tensor([5, 2]))
    >>> y.shape, (y != 0).all(-1).tolist()
    (torch.Size([2, 3, 8]), [[True, True, False], [True, False, False]])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(width, KERNEL, stride=STRIDE, right=KERNEL - STRIDE)
        self.pointwise = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B N D"], lengths: Int[Tensor, "B"] | None = None) -> Float[Tensor, "B M D"]:
        """The reduced tokens; zeros at the last of an odd recording, and beyond ``reduced_length(lengths)``.

        Args:
            x: what lies beyond a length is not read.
            lengths: tokens of each recording; None where all have N.
        """
        y = self.pointwise(self.depthwise(zero_padding(x, lengths)))
        y = F.pad(y, (0, 0, 0, x.shape[1] % STRIDE))
        return zero_padding(y, None if lengths is None else lengths // STRIDE)


class TimeRecovery(nn.Module):
    """Reduced tokens ``(B,M,D)`` back to ``(B,N,D)``, added to what reduction was given.

    Args:
        width: D.

    >>> TimeRecovery(8)(torch.zeros(2, 3, 8), torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, y: Float[Tensor, "B M D"], saved: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """``saved`` plus each of the tokens ``y``, mapped, at both of its places."""
        mapped: Tensor = self.linear(y)
        # Not repeat_interleave and a crop: exporters stumble over the one, and over the other where N is odd.
        source = torch.arange(saved.shape[1], device=y.device) // STRIDE
        return saved + mapped.index_select(1, source)
