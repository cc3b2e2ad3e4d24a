"""The members of ``core.convolution`` written out plainly, as ``core.testing.oracles`` does those of other rooms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.testing.oracles import ACTIVATION_ORACLES, NORM_ORACLES, MixerOracle, linear


def depthwise_oracle(module: Any, x: Tensor) -> Tensor:
    """One sequence ``(T,C)``, float64: every output the sum of the taps that meet an element, and the bias."""
    length, kernel = x.shape[0], module.weight.shape[2]
    weight, bias = module.weight.double()[:, 0], module.bias.double()
    rows = []
    for first in range(-module.left, length + module.right - kernel + 1, module.stride):
        taps = [tap for tap in range(kernel) if 0 <= first + tap < length]
        rows.append(bias + (weight[:, taps].T * x[[first + tap for tap in taps]]).sum(0))
    return torch.stack(rows) if rows else x[:0]


def convolution(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.convolution.ConvolutionModule`` outside training: one sequence after another, padding as zeros."""
    silu, sigmoid = ACTIVATION_ORACLES["silu"], ACTIVATION_ORACLES["sigmoid"]
    norm = NORM_ORACLES[type(module.norm).__name__.lower()]
    rows = []
    for b in range(x.shape[0]):
        h = linear(module.pointwise_in, x[b])
        if module.activation == "swish":
            h = silu(h)
        else:
            half = h.shape[1] // 2
            h = h[:, :half] * sigmoid(h[:, half:])
        real = torch.ones(len(h), 1, dtype=torch.float64) if mask is None else mask[b, :, None].double()
        h = depthwise_oracle(module.depthwise, h * real)
        rows.append(real * linear(module.pointwise_out, silu(norm(module.norm, h))))
    return torch.stack(rows) if rows else x


def separable(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.convolution.SeparableConvolution``: every output the sum of the taps that meet a real position."""
    reach = module.kernel - 1 if module.causal else module.kernel // 2
    taps = module.taps.double()[:, 0]
    rows = []
    for b in range(x.shape[0]):
        h = linear(module.pointwise_in, x[b])
        h = module.activation.scale.double() * (h * (h > 0)) ** 2 + module.activation.bias.double()
        real = [True] * len(h) if mask is None else mask[b].tolist()
        for i in range(len(h)):
            met = [tap for tap in range(module.kernel) if 0 <= i + tap - reach < len(h) and real[i + tap - reach]]
            mixed = (taps[:, met].T * h[[i + tap - reach for tap in met]]).sum(0)
            rows.append(real[i] * linear(module.pointwise_out, mixed))
    return torch.stack(rows).view(x.shape) if rows else x


CONVOLUTION_ORACLES: dict[str, MixerOracle] = {"convolution": convolution, "sepconv": separable}
