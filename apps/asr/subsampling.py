"""The convolutional front end of Squeezeformer: features every 10 ms become tokens every 40 ms.

Source: Kim et al., "Squeezeformer" (NeurIPS 2022, arXiv 2206.00888); the authors' ``kssteven418/Squeezeformer``.

    y = relu(conv1(x))                          dense 3x3, stride 2, 1 -> D channels
    z = relu(pointwise(depthwise(y)))           depthwise 3x3, stride 2; no activation between the two
    t = norm(dropout(sqrt(D) linear(flatten(z))))

Alignment: each convolution pads one row of zeros at the end of time and of frequency and nothing at the start, so that
T frames become floor(floor(T/2)/2), and token t reads the frames 4t ... 4t+6, whose centre is frame 4t+3. Flattening is
frequency-major: number f*D + c is channel c at frequency f.

Deviations: lengths are those of the convolutions (the program's masks are one or two tokens too long), and frames
beyond a recording's end are set to zero before each convolution, so that a recording gives the same in any batch. Fewer
than four frames give no token. The first convolution is computed as a matrix product over its nine taps, the pointwise
one as a linear map: about half the time of torch's convolutions on a processor (``apps.asr.frontend``).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from apps.asr.frontend import separable_front
from core.errors import InputError
from core.kernels import Dropout
from core.norm import norm_named
from core.sequence import Ragged


def subsampled_length(frames: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Tokens of a recording of so many frames: floor(floor(T/2)/2).

    >>> subsampled_length(torch.tensor([0, 3, 4, 97, 100, 103, 1001])).tolist()
    [0, 0, 1, 24, 25, 25, 250]
    """
    return frames // 2 // 2


def zero_padding(x: Float[Tensor, "B T *rest"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "B T *rest"]:
    """``x`` with zeros from each length on, whatever was there; unchanged where there are no lengths.

    >>> zero_padding(torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), torch.tensor([2, 1])).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    if lengths is None:
        return x
    padding = ~Ragged(lengths, x.shape[1]).mask
    return x.masked_fill(padding.view(*padding.shape, *[1] * (x.ndim - 2)), 0.0)


class Subsampling(nn.Module):
    """Features ``(B,T,F)`` to tokens ``(B,N,D)``, N = floor(floor(T/2)/2).

    Args:
        bins: F, mel bins; at least 4.
        width: D, channels of the convolutions and width of a token.
        dropout: before the norm, in training.
        norm: name in ``core.norm.NORMS``.
        norm_eps: inside that norm's square root.

    Raises:
        InputError: fewer than four bins, an unknown norm, or features of another number of bins.

    >>> front = Subsampling(80, 8)
    >>> front(torch.zeros(2, 101, 80), torch.tensor([101, 7])).shape
    torch.Size([2, 25, 8])
    """

    def __init__(
        self, bins: int, width: int, *, dropout: float = 0.0, norm: str = "layernorm", norm_eps: float = 1e-3
    ) -> None:
        super().__init__()
        if bins < 4:
            raise InputError(f"{bins} mel bins cannot be halved twice", where="Subsampling", mend="use at least 4")
        self.bins, self.width = bins, width
        self.conv1 = nn.Conv2d(1, width, 3, stride=2)
        self.depthwise = nn.Conv2d(width, width, 3, stride=2, groups=width)
        self.pointwise = nn.Linear(width, width)
        self.linear = nn.Linear(bins // 2 // 2 * width, width)
        self.dropout = Dropout(dropout)
        self.norm = norm_named(norm, width, {"eps": norm_eps}, where="Subsampling")

    def forward(
        self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Tokens, of which the first ``subsampled_length(lengths)`` are defined.

        Args:
            features: log-mel frames; what lies beyond a length is not read.
            lengths: frames of each recording; None where all have T.
        """
        if features.ndim != 3 or features.shape[-1] != self.bins:
            shape = tuple(features.shape)
            raise InputError(f"features have shape {shape}, not (B, T, {self.bins})", where="Subsampling")
        half = None if lengths is None else lengths // 2
        taps = self._taps(zero_padding(features, lengths), half)
        first, second = self.conv1, self.depthwise
        assert first.bias is not None
        assert second.bias is not None
        dense = torch.cat([first.weight.flatten(1), first.bias[:, None]], dim=1)
        z = separable_front(taps, dense, second.weight, second.bias, self.pointwise.weight, self.pointwise.bias)
        if features.shape[1] < 4:
            z = z[:, :0]
        tokens = self.linear(z.flatten(2)) * math.sqrt(self.width)
        mask = None if lengths is None else Ragged(subsampled_length(lengths), tokens.shape[1]).mask
        normed: Tensor = self.norm(self.dropout(tokens), mask)
        return normed

    def _taps(self, x: Float[Tensor, "B T F"], half: Int[Tensor, "B"] | None) -> Float[Tensor, "B R S 10"]:
        """What the first convolution reads, and a one for its bias, with the zeros that the second reads at the ends.

        Where the one is zero like the taps, so is the result: nothing large is masked or padded.
        """
        frames, bins = x.shape[1] // 2, x.shape[2] // 2
        # A row more than the definition's one: slices that never reach the end export for odd T and even.
        padded = F.pad(x.to(self.conv1.weight.dtype), (0, 1, 0, 2))
        taps = [padded[:, i : i + 2 * frames : 2, j : j + 2 * bins : 2] for i in range(3) for j in range(3)]
        # At least a window, even where no frame is.
        below = 1 if frames > 1 else 3 - frames
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            real = zero_padding(torch.stack([*taps, torch.ones_like(taps[0])], dim=-1), half)
            return F.pad(real, (0, 0, 0, 1, 0, below))
        # The same with one array of this size, not two or three.
        made = padded.new_zeros(x.shape[0], frames + below, bins + 1, 10)
        inside = made[:, :frames, :bins]
        torch.stack([*taps, padded.new_ones(()).expand_as(taps[0])], dim=-1, out=inside)
        if half is not None:
            inside.masked_fill_(~Ragged(half, frames).mask[:, :, None, None], 0.0)
        return made
