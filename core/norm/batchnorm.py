"""Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167), over the last axis, of real tokens only.

    y = (x - m) / sqrt(v + eps) * weight + bias

In training m and v (biased) are the mean and variance of each channel over all real tokens of the batch, and move the
running statistics, r <- (1 - momentum) r + momentum m, likewise the variance with its unbiased estimate. Outside
training m and v are the running statistics, and the norm is one affine map of each token alone.

``weight``, ``bias``, ``running_mean`` and ``running_var``, all ``(D,)``, are named as in ``torch.nn.BatchNorm1d``,
whose state dict loads (its counter of batches is left out). Statistics are computed in float32 at least.

Which tokens are real is what ``mask`` says. Public speech models (NeMo, WeNet, the authors' Squeezeformer) count the
padding in, so that a result in training depends on what a sequence was batched with; ``masked=False`` does as they do.

Where several processes train together the engine has the statistics taken over the rows of all (:mod:`.pooled`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.errors import InputError
from core.norm import pooled
from core.norm.base import Norm, fold_affine
from core.norm.identity import Identity


class BatchNorm(Norm):
    """Batch normalisation of the last axis.

    In training, masked tokens are not read, not even a NaN, and come out as zeros. A batch without real tokens leaves
    the running statistics as they are; one real token moves the mean only, having no variance.

    Args:
        width: D.
        eps: added to the variance inside the square root.
        momentum: weight of the newest batch in the running statistics; in (0, 1].
        masked: False ignores the mask, so that padding counts.

    >>> norm = BatchNorm(1, eps=1e-12)
    >>> x = torch.tensor([[[0.0], [2.0], [9.0]]])
    >>> norm(x, torch.tensor([[True, True, False]])).flatten().tolist()
    [-1.0, 1.0, 0.0]
    >>> norm.running_mean, norm.running_var
    (tensor([0.1000]), tensor([1.1000]))
    """

    running_mean: Tensor
    running_var: Tensor

    source = "Ioffe and Szegedy, arXiv 1502.03167"
    cost = "two statistics of each channel in training; folds away in evaluation"

    def __init__(self, width: int, *, eps: float = 1e-5, momentum: float = 0.1, masked: bool = True) -> None:
        super().__init__(width, eps=eps)
        if not 0.0 < momentum <= 1.0:
            raise InputError(f"momentum {momentum} is outside (0, 1]", where="batchnorm")
        self.momentum, self.masked = momentum, masked
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise ``x (...,D)``; in training by the tokens where ``mask`` is True (all, without one)."""
        kind = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)
        rows = x.reshape(-1, self.width)
        if not self.training or mask is None or not self.masked:
            return self._normalise(rows.to(kind)).to(x.dtype).view(x.shape)
        real = mask.flatten().nonzero().squeeze(1)
        y = self._normalise(rows.index_select(0, real).to(kind)).to(x.dtype)
        # On a processor index_add is twice as fast as index_copy.
        return rows.new_zeros(rows.shape).index_add_(0, real, y).view(x.shape)

    def _normalise(self, rows: Tensor) -> Tensor:
        """Rows ``(n,D)`` of which every one counts, in the dtype of the computation."""
        if self.training and pooled.is_pooled():
            return self._normalise_together(rows)
        kind = rows.dtype
        weight, bias = self.weight.to(kind), self.bias.to(kind)
        # Without a change of dtype these are the buffers themselves, which torch then moves in place.
        mean, var = self.running_mean.to(kind), self.running_var.to(kind)
        if self.training and rows.shape[0] == 0:
            return rows * weight + bias
        if self.training and rows.shape[0] == 1:
            var = var.clone()
        cudnn = torch.backends.cudnn.enabled
        y = torch.batch_norm(rows, weight, bias, mean, var, self.training, self.momentum, self.eps, cudnn)
        if self.training and mean is not self.running_mean:
            self.running_mean.copy_(mean)
            if rows.shape[0] > 1:
                self.running_var.copy_(var)
        return y

    @torch.no_grad()
    def _move(self, count: int, mean: Tensor, var: Tensor) -> None:
        """The running statistics, towards those of a batch of so many rows."""
        if count > 0:
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        if count > 1:
            unbiased = var * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)

    def _normalise_together(self, rows: Tensor) -> Tensor:
        """The same, by the rows of all processes."""
        y, count, mean, var = pooled.normalise(rows, self.weight.to(rows.dtype), self.bias.to(rows.dtype), self.eps)
        self._move(count, mean, var)
        return y

    def fold_into(self, linear: nn.Linear) -> tuple[Norm, nn.Linear]:
        """An identity, and the linear map with the whole norm in it; the norm must be in evaluation mode."""
        if self.training:
            raise InputError("a batch norm folds in evaluation mode only", where="batchnorm", mend="call eval() first")
        scale = self.weight.double() * (self.running_var.double() + self.eps).rsqrt()
        shift = self.bias.double() - self.running_mean.double() * scale
        return Identity(self.width, eps=self.eps).eval(), fold_affine(linear, scale, shift)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Leave out torch's counter of batches, which only its cumulative average needs."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Width, eps and momentum, for ``print(module)``."""
        return f"{super().extra_repr()}, momentum={self.momentum}, masked={self.masked}"
