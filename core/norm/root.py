"""Tokens divided by their root mean square, as RMS and CRMS norms share it.

    y = x / sqrt((sum(x^2) + h sum(x)^2) / (D + h) + eps)       h: 1 where a channel, minus the sum, is left out; else 0

torch has one fused operation for a layer norm on a processor and none for this. What is written out takes several
passes over memory: the plain form is the reference, and on a processor in float32 the sum of squares comes from a norm
and one product follows it; in 16 bits that is done piece by piece, which keeps the float32 copy in the cache. In
training the gradient is written out as well, with s = 1 / sqrt(...) and g = dL/dy:

    dL/dx = s (g - s^2 / (D + h) sum(g x) (x + h sum(x)))
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Numbers of a piece: 1 MiB in float32.
_PIECE = 1 << 18
_NARROW = (torch.bfloat16, torch.float16)


def over_root(
    x: Float[Tensor, "*tokens D"], eps: float, *, hidden: bool = False, centred: bool = False
) -> Float[Tensor, "*tokens D"]:
    """``x`` divided token by token, computed in float32 at least and rounded once.

    Args:
        x: tokens.
        eps: inside the square root.
        hidden: a last channel, minus the sum of the others, is left out.
        centred: in 16 bits without gradients, try torch's layer norm, and take its result where every mean that it
            found is below half a unit in the last place of the result's root mean square. No promise: tokens that are
            not centred are only divided later.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() == 0:
        wide = x.float() if x.dtype in _NARROW else x
        return (wide * _plain(wide, eps, hidden)).to(x.dtype)
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _OverRoot.apply(x.float() if x.dtype in _NARROW else x, eps, hidden)
        return y.to(x.dtype)
    if x.dtype not in _NARROW:
        return x * _inverse_root(x, eps, hidden)
    found = _by_layer_norm(x, eps) if centred and not hidden else None
    return _in_pieces(x, eps, hidden) if found is None else found


def _plain(x: Tensor, eps: float, hidden: bool) -> Tensor:
    """s of every token."""
    squares = x.square().sum(-1, keepdim=True)
    if hidden:
        squares = squares + x.sum(-1, keepdim=True).square()
    return torch.rsqrt(squares / (x.shape[-1] + hidden) + eps)


def _inverse_root(x: Tensor, eps: float, hidden: bool) -> Tensor:
    """The same with fewer passes over memory."""
    root = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    squares = root.mul_(root)
    if hidden:
        total = x.sum(-1, keepdim=True)
        squares.addcmul_(total, total)
    # eps + squares / width in one operation: for few tokens the number of calls is what counts.
    return torch.rsub(squares, eps, alpha=-1 / (x.shape[-1] + hidden)).rsqrt_()


def _in_pieces(x: Tensor, eps: float, hidden: bool) -> Tensor:
    """16 bits through a piece of float32 that stays in the cache."""
    rows = x.reshape(-1, x.shape[-1])
    y, count = rows.new_empty(rows.shape), max(1, _PIECE // x.shape[-1])
    wide = rows.new_empty(min(count, len(rows)), x.shape[-1], dtype=torch.float32)
    for piece, result in zip(torch.split(rows, count), torch.split(y, count), strict=True):
        part = wide[: len(piece)].copy_(piece)
        result.copy_(part.mul_(_inverse_root(part, eps, hidden)))
    return y.view(x.shape)


def _by_layer_norm(x: Tensor, eps: float) -> Tensor | None:
    """The layer norm of every token, where they are centred; otherwise nothing."""
    y, mean, scale = torch.native_layer_norm(x, (x.shape[-1],), None, None, eps)
    return y if float((mean * scale).abs().max()) <= torch.finfo(x.dtype).eps / 4 else None


class _OverRoot(torch.autograd.Function):
    """Divided tokens; gradients of gradients go through the plain form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, hidden: bool) -> Tensor:
        scale = _inverse_root(x, eps, hidden)
        ctx.save_for_backward(x, scale)
        ctx.eps, ctx.hidden = eps, hidden
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, scale = ctx.saved_tensors
        width = x.shape[-1] + ctx.hidden
        if torch.is_grad_enabled():
            scale = _plain(x, ctx.eps, ctx.hidden)
            read = x + x.sum(-1, keepdim=True) if ctx.hidden else x
            product = (grad * x).sum(-1, keepdim=True)
            return scale * (grad - scale.square() / width * product * read), None, None
        return _gradient(x, scale, grad, ctx.hidden), None, None


def _gradient(x: Tensor, scale: Tensor, grad: Tensor, hidden: bool) -> Tensor:
    """dL/dx, piece by piece: nothing of the size of x is made besides the result."""
    width = x.shape[-1]
    parts = (x.reshape(-1, width), scale.reshape(-1, 1), grad.reshape(-1, width), x.new_empty(x.shape).view(-1, width))
    count = max(1, _PIECE // width)
    product = x.new_empty(min(count, len(parts[0])), width)
    pieces = (
        [parts] if len(product) == len(parts[0]) else zip(*(torch.split(part, count) for part in parts), strict=True)
    )
    for a, s, g, y in pieces:
        turn = torch.mul(g, a, out=product[: len(a)]).sum(-1, keepdim=True).mul_(s).mul_(s).div_(-width - hidden)
        torch.addcmul(g, a, turn, out=y)
        if hidden:
            y.add_(turn.mul_(a.sum(-1, keepdim=True)))
        y.mul_(s)
    return parts[3].view(x.shape)
