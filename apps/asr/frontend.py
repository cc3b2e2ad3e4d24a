"""The large part of the front end, a few rows of time at a time: from the taps of the first convolution on.

    y = relu(W taps)      u = depthwise3x3(y, stride 2)      z = relu(P u + p)

y has D channels at half the rate of time and of frequency, thirty times the numbers of the features: made as a whole it
is what the network needs most memory for, and beyond 32 MiB an allocation that the operating system clears each time.
Here it is made in pieces that stay in the cache of the processor and, for the gradients, made anew.

Shapes: taps ``(B,R,S,10)`` of rows and bins, W ``(D,10)``, depthwise kernels ``(D,1,3,3)`` and bias ``(D,)``, P
``(D,D)``, p ``(D,)``, z ``(B,M,G,D)`` with M = floor((R-1)/2), G = floor((S-1)/2). Gradients of gradients are not
offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of y that are made at a time.
_PIECE = 1 << 21


def separable_front(
    taps: Float[Tensor, "B R S 10"],
    dense: Float[Tensor, "D 10"],
    depthwise: Float[Tensor, "D 1 3 3"],
    depthwise_bias: Float[Tensor, "D"],
    pointwise: Float[Tensor, "D D"],
    pointwise_bias: Float[Tensor, "D"],
) -> Float[Tensor, "B M G D"]:
    """z of this module's head; in pieces on a processor, under autocast in its dtype.

    >>> ones = torch.ones(2)
    >>> z = separable_front(
    ...     torch.ones(1, 5, 3, 10), torch.ones(2, 10), torch.ones(2, 1, 3, 3), ones, torch.eye(2), -ones
    ... )
    >>> z.shape, z.unique().tolist()
    (torch.Size([1, 2, 1, 2]), [90.0])
    """
    tensors: tuple[Tensor, ...] = (taps, dense, depthwise, depthwise_bias, pointwise, pointwise_bias)
    if taps.device.type != "cpu" or torch.compiler.is_compiling():
        return _layers(*tensors)
    if torch.is_autocast_enabled("cpu"):
        tensors = tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)
    return cast(Tensor, _InPieces.apply(*tensors)) if torch.is_grad_enabled() else _in_pieces(*tensors)


def _separable(taps: Tensor, dense: Tensor, depthwise: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """y and u, as written."""
    y = F.linear(taps, dense).relu_()
    return y, F.conv2d(y.permute(0, 3, 1, 2), depthwise, bias, 2, groups=len(dense)).permute(0, 2, 3, 1)


def _layers(taps: Tensor, *parameters: Tensor) -> Tensor:
    """z, as written."""
    return F.linear(_separable(taps, *parameters[:3])[1], *parameters[3:]).relu_()


def _pieces(taps: Tensor, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows of z, and the rows of taps that they read."""
    batch, rows, bins, _ = taps.shape
    step = max(1, _PIECE // max(1, 2 * batch * bins * width * taps.element_size()))
    count = (rows - 1) // 2
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield slice(start, stop), slice(2 * start, 2 * stop + 1)


def _in_pieces(taps: Tensor, *parameters: Tensor) -> Tensor:
    """z, some rows at a time."""
    batch, rows, bins, _ = taps.shape
    width = len(parameters[0])
    z = taps.new_empty(batch, (rows - 1) // 2, (bins - 1) // 2, width)
    for made, read in _pieces(taps, width):
        z[:, made] = _layers(taps[:, read], *parameters)
    return z


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        z = _in_pieces(*tensors)
        ctx.save_for_backward(*tensors, z)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, z = ctx.saved_tensors
        taps, width = tensors[0], len(tensors[1])
        # Sums over the pieces are in float32 at least.
        wide = torch.promote_types(taps.dtype, torch.float32)
        by_taps = torch.zeros_like(taps) if ctx.needs_input_grad[0] else None
        totals = [torch.zeros_like(tensor, dtype=wide) for tensor in tensors[1:]]
        for made, read in _pieces(taps, width):
            dz = torch.ops.aten.threshold_backward(grad[:, made], z[:, made], 0)
            dy, parts = _gradients(dz, taps[:, read], tensors[1:])
            for total, part in zip(totals, parts, strict=True):
                total += part
            if by_taps is not None:
                by_taps[:, read] += dy @ tensors[1]
        return by_taps, *(total.to(taps.dtype) for total in totals)


def _gradients(dz: Tensor, taps: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of a piece: the gradient of what goes into the first relu, and those of the parameters in their order."""
    dense, depthwise, bias, pointwise, _ = parameters
    y, u = _separable(taps, dense, depthwise, bias)
    rows = dz.flatten(0, 2)
    # In float32: in 16 bits torch's depth-wise gradients take three times as long.
    wide = torch.promote_types(taps.dtype, torch.float32)
    du, y = (dz @ pointwise).permute(0, 3, 1, 2).to(wide), y.to(wide)
    fixed = ([len(dense)], [2, 2], [0, 0], [1, 1], False, [0, 0], len(dense), [True, True, True])
    dy, *by_depthwise = torch.ops.aten.convolution_backward(du, y.permute(0, 3, 1, 2), depthwise.to(wide), *fixed)
    dy = dy.permute(0, 2, 3, 1)
    dy = torch.ops.aten.threshold_backward.grad_input(dy, y, 0, grad_input=dy).to(taps.dtype)
    by_dense = dy.flatten(0, 2).T @ taps.flatten(0, 2)
    return dy, (by_dense, *by_depthwise, rows.T @ u.flatten(0, 2), rows.sum(0))
