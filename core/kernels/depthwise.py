"""Depth-wise convolution over time, on activations that lie as transformers keep them: channels last.

    y[b, i, c] = bias[c] + sum_{j < k} weight[c, 0, j] x[b, i*stride + j - left, c],   x = 0 outside [0, T)

``torch.nn.functional.conv1d`` wants ``(B,C,T)``: two transposes, and on a processor its depth-wise form is slow. Here
``(B,T,C)`` is looked at, without a copy, as an image of one row (or one column) with the channels last. Measured on one
thread with torch 2.14, kernel 31, 288 channels, float32 and bfloat16 (``benchmarks/kernels.py``): the row form is the
fastest forward, and so for the gradient of x, which is a convolution with the flipped kernels. The column form is for
the gradient of the weight. There sequences shorter than the kernel are ten times as slow as longer ones, so that they
are joined, with zeros between them; and operands that outgrow the second cache twice as slow, so that a batch is taken
in pieces. In 16 bits the row form never returns for few channels and a kernel of 15 or more: there it is the column.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Length = TypeVar("Length", int, Tensor)

# Channels up to which 16 bits avoid the row form, and bytes of x that the gradient of the weight takes at once.
_FEW_CHANNELS, _PIECE = 16, 3 << 17


def conv_length(length: Length, kernel: int, *, stride: int = 1, left: int = 0, right: int = 0) -> Length:
    """How many outputs a convolution over ``length`` elements has; a number, or a tensor of whole numbers.

    floor((length + left + right - kernel) / stride) + 1, and 0 where the padded input is shorter than the kernel.

    >>> [conv_length(n, 5, stride=2, right=3) for n in (0, 1, 2, 3, 4, 250)]
    [0, 0, 1, 1, 2, 125]
    >>> conv_length(torch.tensor([7, 0]), 3, left=1, right=1).tolist()
    [7, 0]
    """
    count = (length + (left + right - kernel)) // stride + 1
    return count.clamp(min=0) if isinstance(count, Tensor) else max(count, 0)


def depthwise_conv1d(
    x: Float[Tensor, "B T C"],
    weight: Float[Tensor, "C 1 k"],
    bias: Float[Tensor, "C"] | None = None,
    *,
    stride: int = 1,
    left: int = 0,
    right: int = 0,
) -> Float[Tensor, "B L C"]:
    """Convolve every channel with its own kernel; L is :func:`conv_length` of T.

    Args:
        x: activations.
        weight: as in ``torch.nn.Conv1d`` with ``groups=C``; correlated, not flipped.
        bias: added to every output.
        stride: distance of neighbouring outputs, in elements of x.
        left: zeros before the first element.
        right: zeros after the last one.

    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> depthwise_conv1d(x, torch.ones(1, 1, 2), left=1).flatten().tolist()
    [1.0, 3.0, 5.0]
    """
    if x.device.type != "cpu" or _is_empty(x, weight, left, right):
        return depthwise_conv1d_reference(x, weight, bias, stride=stride, left=left, right=right)
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    # Zeros on both sides are the convolution's own affair, unless there is nothing between them.
    both = min(left, right) if x.shape[1] else 0
    if left != both or right != both:
        x = F.pad(x, (0, 0, left - both, right - both))
    x = x.contiguous()
    if not torch.is_grad_enabled():  # a function with its own gradient costs as much as 50 tokens
        return _convolve(x, weight, bias, stride, both)
    y: Tensor = _ChannelsLast.apply(x, weight, bias, stride, both)
    return y


def depthwise_conv1d_reference(
    x: Float[Tensor, "B T C"],
    weight: Float[Tensor, "C 1 k"],
    bias: Float[Tensor, "C"] | None = None,
    *,
    stride: int = 1,
    left: int = 0,
    right: int = 0,
) -> Float[Tensor, "B L C"]:
    """The same by torch's own convolution, transposed twice."""
    if _is_empty(x, weight, left, right):
        # No number, yet still a function of x, whose gradient is zero.
        length = conv_length(x.shape[1], weight.shape[2], stride=stride, left=left, right=right)
        return F.pad(x[:, :0], (0, 0, 0, length)) * weight[:, 0, 0]
    padded = F.pad(x.transpose(1, 2), (left, right))
    return F.conv1d(padded, weight, bias, stride=stride, groups=x.shape[2]).transpose(1, 2)


def _is_empty(x: Tensor, weight: Tensor, left: int, right: int) -> bool:
    """Whether the result has no number: no sequence, or fewer elements than taps."""
    return bool(x.shape[0] == 0 or x.shape[1] + left + right < weight.shape[2])


def _row(x: Tensor) -> Tensor:
    """``(B,T,C)`` seen as ``(B,C,1,T)``."""
    return x.transpose(1, 2).unsqueeze(2)  # half the time of an index


def _column(x: Tensor) -> Tensor:
    """``(B,T,C)`` seen as ``(B,C,T,1)``."""
    return x.transpose(1, 2).unsqueeze(3)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """The convolution in the form that is fastest forward, but where torch never returns from it."""
    channels = x.shape[2]
    if x.element_size() == 2 and channels <= _FEW_CHANNELS:
        y = F.conv2d(_column(x), weight[..., None], bias, (stride, 1), (padding, 0), groups=channels)
        return y[..., 0].transpose(1, 2)
    y = F.conv2d(_row(x), weight.unsqueeze(2), bias, (1, stride), (0, padding), groups=channels)
    return y.squeeze(2).transpose(1, 2)


class _ChannelsLast(torch.autograd.Function):
    """Symmetrically padded depth-wise convolution, each of its passes in the layout that is fastest for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.biased = stride, padding, bias is not None
        return _convolve(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _by_x(grad, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(grad, x, weight, ctx.stride, ctx.padding)
        if ctx.biased and ctx.needs_input_grad[2]:
            by_bias = grad.sum((0, 1))
        return by_x, by_weight, by_bias, None, None


def _by_x(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of x: the convolution of ``grad`` with the flipped kernels, where there is no stride."""
    if stride == 1 and padding < weight.shape[2]:
        return _convolve(grad, weight.flip(2), None, 1, weight.shape[2] - 1 - padding)
    operands = (_row(grad), _row(x), weight[:, :, None], None, [1, stride], [0, padding])
    rest = ([1, 1], False, [0, 0], x.shape[2], [True, False, False])
    by_x: Tensor = torch.ops.aten.convolution_backward(*operands, *rest)[0]
    return by_x[:, :, 0].transpose(1, 2)


def _by_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weight, of so many sequences at a time that they stay in the cache."""
    kernel = weight.shape[2]
    gap = padding if stride == 1 and x.shape[1] < kernel and 2 * padding < kernel else 0
    together = max(1, _PIECE // ((x.shape[1] + gap) * x.shape[2] * x.element_size()))
    pieces: Iterable[tuple[Tensor, Tensor]] = zip(torch.split(grad, together), torch.split(x, together), strict=True)
    if gap:
        pieces = (_joined(*piece, kernel, gap) for piece in pieces)
    parts = [_by_weight_of_piece(*piece, weight, stride, padding) for piece in pieces]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _joined(grad: Tensor, x: Tensor, kernel: int, padding: int) -> tuple[Tensor, Tensor]:
    """Sequences shorter than the kernel, for which torch's form is slow, as one long one, kept apart by zeros."""
    channels, beyond = x.shape[2], kernel - 1 - padding
    x = F.pad(x, (0, 0, 0, padding)).view(1, -1, channels)
    grad = F.pad(grad, (0, 0, 0, beyond)).view(1, -1, channels)
    return grad[:, : grad.shape[1] + padding - beyond].contiguous(), x


def _by_weight_of_piece(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    operands = (_column(grad), _column(x), weight[..., None], None, [stride, 1], [padding, 0])
    rest = ([1, 1], False, [0, 0], x.shape[2], [False, True, False])
    by_weight: Tensor = torch.ops.aten.convolution_backward(*operands, *rest)[1]
    return by_weight[..., 0]
