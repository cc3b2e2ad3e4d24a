"""Unified normalisation (Yang et al., arXiv 2208.01313, ACM MM 2022): a batch norm without mean that trains steadily.

    y = x / sqrt(v + eps) * weight + bias,   v a channel's mean square

Outside training v is the running value, and the norm one affine map of each token. In training, with q the mean squares
over the batch's real tokens, put into a window of the last w such rows:

    v = q                              during the warm-up, until the window is full, and for a batch left out
    v = exp(mean(log(window)))         afterwards
    running <- (1 - momentum) running + momentum v

Gradients are not those of this formula but smoothed likewise. With z = x / sqrt(v + eps), and r = sqrt((v + eps) /
(running + eps)) with the running value from before, within [1/5, 5] (1 early, and for a batch left out):

    g = dL/dy weight r          p = mean over tokens of g z, into a window of its own
    m = p where v = q, else the mean of that window          e <- (1 - momentum) e + momentum m
    dL/dx = (g - e z) / sqrt(v + eps)        dL/dweight = sum of dL/dy r z        dL/dbias = sum of dL/dy

``filtered`` leaves outliers out (advised for pictures): where in any channel the arithmetic mean of the window exceeds
the geometric one by more than w times the variance that the window's roots had before, the running value goes into the
window instead of q, e into that of the gradients, and dL/dx takes p itself for e.

Deviations from the released program: the step is told (:mod:`core.clock`); that one counts forward passes. The warm-up
is at most a tenth of the training, which 4000 steps may exceed; likewise the first 1000 steps in which r is 1. Padding
comes out as zeros and is left out of p, too (``masked=False``: of q alone, as released). The filter waits until the
window is full. ``momentum`` is the weight of the newest batch, as in the other norms. Where several processes train
together, q and p are of the rows of all (:mod:`.pooled`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.clock import untold
from core.errors import InputError
from core.norm import pooled
from core.norm.base import Norm
from core.norm.batchnorm import BatchNorm

_UNSCALED = 1000
_BOUND = 5.0


class _Batch(NamedTuple):
    """What a training batch is normalised by.

    Attributes:
        var: v.
        ratio: r.
        fresh: gradients are the batch's own, not the window's.
        skipped: the batch was left out.
    """

    var: Tensor
    ratio: Tensor
    fresh: bool
    skipped: bool


class UnifiedNorm(Norm):
    """Division by smoothed root mean squares of the channels.

    Args:
        width: D.
        eps: added to the mean square inside the square root.
        momentum: weight of the newest batch in the running values; in (0, 1].
        window: w, batches whose mean squares are averaged; at least 2.
        warmup: steps before that begins; no more than a tenth of the training.
        filtered: leave outliers out.
        masked: False lets padding into the mean of the gradients, and leaves it in the result.

    Raises:
        InputError: an option outside its range; in training, a forward pass before the first step was told
            (``core.clock.advance``).

    >>> norm = UnifiedNorm(1, eps=1e-12)
    >>> norm.at_step(0, of=100)
    >>> (norm(torch.tensor([[3.0], [4.0]])).detach() * 12.5**0.5).round(decimals=4).flatten().tolist()
    [3.0, 4.0]
    """

    running_var: Tensor
    squares: Tensor
    products: Tensor
    mean_product: Tensor
    skips: Tensor

    source = "Yang et al., arXiv 2208.01313"
    cost = "one statistic of each channel, averaged over a window, in training; folds away in evaluation"

    def __init__(
        self,
        width: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        window: int = 4,
        warmup: int = 4000,
        filtered: bool = False,
        masked: bool = True,
    ) -> None:
        super().__init__(width, eps=eps)
        if not 0.0 < momentum <= 1.0:
            raise InputError(f"momentum {momentum} is outside (0, 1]", where="unifiednorm")
        if window < 2 or warmup < 0:
            raise InputError(f"window {window} and warmup {warmup} are not >= 2 and >= 0", where="unifiednorm")
        self.momentum, self.window, self.warmup = momentum, window, warmup
        self.filtered, self.masked = filtered, masked
        self._at: tuple[int, int] | None = None
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("squares", torch.zeros(window, width))
        self.register_buffer("products", torch.zeros(window, width))
        self.register_buffer("mean_product", torch.zeros(width))
        self.register_buffer("skips", torch.zeros((), dtype=torch.int64))

    def at_step(self, step: int, of: int) -> None:
        """Set where the training is."""
        self._at = step, of

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise ``x (...,D)``; in training by the tokens where ``mask`` is True (all, without one)."""
        kind = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)
        weight, bias = self.weight.to(kind), self.bias.to(kind)
        if not self.training:
            scale = weight * (self.running_var.to(kind) + self.eps).rsqrt()
            return (x.to(kind) * scale + bias).to(x.dtype)
        rows, real = x.reshape(-1, self.width).to(kind), None if mask is None else mask.flatten()
        hidden = None if real is None or not self.masked else ~real[:, None]
        if hidden is not None:
            rows = rows.masked_fill(hidden, 0.0)
        y = self._trained(rows, weight, bias, real)
        return (y if hidden is None else y.masked_fill(hidden, 0.0)).to(x.dtype).view(x.shape)

    def _trained(self, rows: Tensor, weight: Tensor, bias: Tensor, real: Tensor | None) -> Tensor:
        """Rows ``(n,D)`` in training; ``real (n,)`` says which of them are tokens."""
        if self._at is None:
            raise untold("unifiednorm")
        tokens = rows.detach() if real is None else rows.detach()[real]
        sums = torch.cat([tokens.square().sum(0), rows.new_tensor([len(tokens), len(rows)])])
        if pooled.is_pooled():
            sums = pooled.summed(sums, counts=pooled.rows_count())
        count, everything = sums[-2:].tolist()
        if count == 0:
            return rows * weight + bias
        batch = self._observe(sums[:-2] / count)
        y: Tensor = _Normalise.apply(rows, weight, bias, self, batch, count if self.masked else everything)
        return y

    @torch.no_grad()
    def _observe(self, square: Tensor) -> _Batch:
        """Take in the mean squares of a batch."""
        assert self._at is not None
        (step, of), kind = self._at, square.dtype
        warmup, n = min(self.warmup, of // 10), step + 1
        full = n > self.window
        recorded = self.squares.to(kind).sqrt().var()
        _push(self.squares, square)
        skipped = self.filtered and full and n >= warmup and self._is_outlier(recorded)
        running = self.running_var.to(kind)
        if skipped:
            self.squares[-1] = self.running_var
            self.skips += 1
        fresh = skipped or not full or n < warmup
        var = square if fresh else self.squares.to(kind).log().mean(0).exp()
        ratio = torch.ones_like(var)
        if not skipped and n > max(min(_UNSCALED, of // 10), warmup):
            ratio = ((var + self.eps) / (running + self.eps)).sqrt().clamp(1 / _BOUND, _BOUND)
        self.running_var.copy_(running.lerp(var, self.momentum))
        return _Batch(var, ratio, fresh, skipped)

    def _is_outlier(self, recorded: Tensor) -> bool:
        window = self.squares.to(recorded.dtype)
        gap = window.mean(0) - window.log().mean(0).exp()
        return bool((gap > self.window * recorded).any())

    @torch.no_grad()
    def _smoothed(self, product: Tensor, batch: _Batch) -> Tensor:
        """What stands for the mean product of gradients and normalised tokens; takes in that of a batch."""
        kind = product.dtype
        _push(self.products, self.mean_product.to(kind) if batch.skipped else product)
        newest = product if batch.fresh else self.products.to(kind).mean(0)
        moved = self.mean_product.to(kind).lerp(newest, self.momentum)
        self.mean_product.copy_(moved)
        return newest if batch.skipped else moved

    def as_batchnorm(self) -> BatchNorm:
        """The batch norm, in float64, that computes the same in evaluation mode: its running mean is 0."""
        same = BatchNorm(self.width, eps=self.eps, momentum=self.momentum, masked=self.masked).double()
        same = same.to(self.weight.device).train(self.training)
        with torch.no_grad():
            same.running_var.copy_(self.running_var)
            same.weight.copy_(self.weight)
            same.bias.copy_(self.bias)
        return same

    def fold_into(self, linear: nn.Linear) -> tuple[Norm, nn.Linear]:
        """An identity, and the linear map with the whole norm in it; the norm must be in evaluation mode."""
        if self.training:
            raise InputError("it folds in evaluation mode only", where="unifiednorm", mend="call eval() first")
        return self.as_batchnorm().fold_into(linear)

    def extra_repr(self) -> str:
        """Width, eps and options, for ``print(module)``."""
        return f"{super().extra_repr()}, window={self.window}, warmup={self.warmup}, filtered={self.filtered}"


def _push(window: Tensor, row: Tensor) -> None:
    """Put a row in for the oldest one."""
    window.copy_(torch.cat([window[1:], row.to(window.dtype)[None]]))


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, norm: UnifiedNorm, batch: _Batch, count: float
    ) -> Tensor:
        scale = (batch.var + norm.eps).rsqrt()
        z = rows * scale
        ctx.save_for_backward(z, weight, scale, batch.ratio)
        ctx.norm, ctx.batch, ctx.count = norm, batch, count
        ctx.pooled, ctx.rows_count = pooled.is_pooled(), pooled.rows_count()
        return z * weight + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, scale, ratio = ctx.saved_tensors
        g = grad * (weight * ratio)
        product = (g * z).sum(0)
        if ctx.pooled:
            product = pooled.summed(product, counts=ctx.rows_count)
        product = product / ctx.count
        by_rows = (g - ctx.norm._smoothed(product, ctx.batch) * z) * scale
        return by_rows, (grad * z).sum(0) * ratio, grad.sum(0), None, None, None
