"""Batch statistics over several processes: each has a part of the batch, all normalise by the whole of it.

Of a channel with n_r rows, mean m_r and sum of squared deviations s_r in process r, all processes gather the three and
find the same mean and variance as one process with all rows (Chan, Golub and LeVeque, 1979)::

    n = sum n_r      m = sum n_r m_r / n      v = (sum s_r + sum n_r (m_r - m)^2) / n

With y = (x - m) / sqrt(v + eps) * w + b, z = (x - m) / sqrt(v + eps), and sums over the rows of all processes::

    dL/dx = w / sqrt(v + eps) * (dL/dy - sum(dL/dy) / n - z sum(z dL/dy) / n)

Gradients of w and b are those of a process's own rows: what gathers all other gradients gathers them too. One exchange
forward, one backward; gradients of gradients are not offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# None: statistics are of this process's rows. Otherwise of all processes', and whether this one's rows count.
_rows_count: bool | None = None


@contextmanager
def pooled(*, rows_count: bool) -> Iterator[None]:
    """Within the block batch statistics are those of all processes of torch's default group, which all must enter it.

    Args:
        rows_count: False for a process that only goes along, with rows that another one has.
    """
    global _rows_count
    before, _rows_count = _rows_count, rows_count
    try:
        yield
    finally:
        _rows_count = before


def is_pooled() -> bool:
    """Whether we are within such a block."""
    return _rows_count is not None


def rows_count() -> bool:
    """Whether this process's rows count: always, outside of such a block."""
    return _rows_count is not False


def summed(values: Float[Tensor, "*shape"], *, counts: bool) -> Float[Tensor, "*shape"]:
    """The sum of what all processes have, added up in float64, without a gradient.

    Args:
        values: of this process.
        counts: False adds nothing of this process.
    """
    total = values.detach().double() if counts else torch.zeros_like(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.to(values.dtype)


def normalise(
    rows: Float[Tensor, "n D"], weight: Float[Tensor, " D"], bias: Float[Tensor, " D"], eps: float
) -> tuple[Float[Tensor, "n D"], int, Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Rows normalised by the statistics of all processes; the number of all rows, their mean and biased variance."""
    y, count, mean, var = _Normalise.apply(rows, weight, bias, eps, bool(_rows_count))
    return y, int(count), mean, var


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float, rows_count: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, mean, var = _statistics(rows if rows_count else rows[:0])
        mean, var = mean.to(rows.dtype), var.to(rows.dtype)
        scale = (var + eps).rsqrt()
        z = (rows - mean) * scale
        ctx.save_for_backward(z, weight, scale, count)
        ctx.rows_count = rows_count
        ctx.mark_non_differentiable(count, mean, var)
        return z * weight + bias, count, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        z, weight, scale, count = ctx.saved_tensors
        by_bias, by_weight = grad.sum(0), (grad * z).sum(0)
        sums = torch.stack([by_bias, by_weight])
        dist.all_reduce(sums)
        by_rows = grad
        if ctx.rows_count:
            by_rows = grad - (sums[0] + z * sums[1]) / count
        return by_rows * (weight * scale), by_weight, by_bias, None, None


def _statistics(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and biased variance of the rows of all processes, in float64; 0 where there are none."""
    count = rows.new_full((1, rows.shape[1]), len(rows), dtype=torch.float64)
    mean = rows.mean(0) if len(rows) else rows.new_zeros(rows.shape[1])
    own = torch.cat([count, torch.stack([mean, (rows - mean).square().sum(0)]).double()])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    counts, means, squares = torch.stack(parts).unbind(1)
    total = counts.sum(0)
    whole = total.clamp(min=1)
    mean = (counts * means).sum(0) / whole
    var = (squares + counts * (means - mean).square()).sum(0) / whole
    return total[0], mean, var
