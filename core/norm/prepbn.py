"""Progressive re-parameterised batch normalisation (Guo et al., SLAB, arXiv 2405.11582): a layer norm becomes one.

    y = s first(x) + (1 - s) (batchnorm(x) + alpha x)          in training
    y = batchnorm(x) + alpha x                                 outside it, at any time

``first`` is a layer norm or an RMS norm; alpha is a learned scalar, 1 at the start. The share s is a function of the
step: 1 until ``warm`` of the training, then falling linearly to 0 at ``fade`` of it, and 0 from there on. What is left
is one affine map of each token, which folds into the linear map that follows. While s is still above 0 an evaluation is
that of another function than the one being trained.

Deviations from the released program: the step comes from outside (:mod:`core.clock`) instead of a count of forward
passes; ``warm`` and ``fade`` are shares of a training, not steps (it uses 60,000 to 300,000 by model); padding is left
out of the batch statistics and comes out as zeros in training. As there, a step of the warm-up moves no statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.clock import untold
from core.errors import InputError
from core.norm.base import Norm
from core.norm.batchnorm import BatchNorm
from core.norm.layernorm import LayerNorm
from core.norm.rmsnorm import RMSNorm

_FIRST: dict[str, type[LayerNorm | RMSNorm]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}


class PRepBN(Norm):
    """A norm that is trained as a layer norm first and as a batch norm with a skip in the end.

    Args:
        width: D.
        eps: of both norms.
        first: the norm at the start.
        fade: share of the training at whose end only the batch norm is left; in (0, 1].
        warm: share of the training with the first norm alone; below ``fade``.
        momentum: weight of the newest batch in the running statistics; in (0, 1].
        masked: False lets padding count in the batch statistics.

    Raises:
        InputError: a share outside its range, another first norm, or a forward pass in training before the first step
            was told (``core.clock.advance``).

    >>> norm = PRepBN(4, fade=0.5)
    >>> for step in (0, 25, 50, 99):
    ...     norm.at_step(step, of=100)
    ...     print(norm.share)
    1.0
    0.5
    0.0
    0.0
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"alpha": "gain"}
    source = "Guo et al., SLAB, arXiv 2405.11582"
    cost = "a layer norm and a batch norm in training; folds away in evaluation"

    def __init__(
        self,
        width: int,
        *,
        eps: float = 1e-5,
        first: Literal["layernorm", "rmsnorm"] = "layernorm",
        fade: float = 0.5,
        warm: float = 0.0,
        momentum: float = 0.1,
        masked: bool = True,
    ) -> None:
        super().__init__(width, eps=eps)
        if first not in _FIRST:
            raise InputError(f"no first norm {first!r}", where="prepbn", mend=f"known: {', '.join(_FIRST)}")
        if not 0.0 <= warm < fade <= 1.0:
            raise InputError(f"warm {warm} and fade {fade} are not 0 <= warm < fade <= 1", where="prepbn")
        self.fade, self.warm = fade, warm
        self.share: float | None = None
        self._warming = False
        self.first = _FIRST[first](width, eps=eps)
        self.batch = BatchNorm(width, eps=eps, momentum=momentum, masked=masked)
        self.alpha = nn.Parameter(torch.ones(()))

    def at_step(self, step: int, of: int) -> None:
        """Set the share of the first norm."""
        begin, end = round(self.warm * of), max(round(self.fade * of), round(self.warm * of) + 1)
        self._warming = step < begin
        self.share = min(1.0, max(0.0, (end - step) / (end - begin)))

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise ``x (...,D)``; in training by the tokens where ``mask`` is True (all, without one)."""
        if not self.training:
            return self._last(x, None)
        if self.share is None:
            raise untold("prepbn")
        padding = None if mask is None else ~mask[..., None]
        x = x if padding is None else x.masked_fill(padding, 0.0)
        y: Tensor
        if self._warming:
            y = self.first(x)
        elif self.share == 0.0:
            y = self._last(x, mask)
        else:
            y = self.share * self.first(x) + (1.0 - self.share) * self._last(x, mask)
        return y if padding is None else y.masked_fill(padding, 0.0)

    def _last(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The batch norm with its skip, in float32 at least and rounded once."""
        kind = torch.promote_types(torch.promote_types(x.dtype, self.alpha.dtype), torch.float32)
        wide = x.to(kind)
        y: Tensor = self.batch(wide, mask) + self.alpha.to(kind) * wide
        return y.to(x.dtype)

    def as_batchnorm(self) -> BatchNorm:
        """The batch norm, in float64, that computes the same in evaluation mode.

        weight' = weight + alpha sqrt(var + eps),   bias' = bias + alpha mean
        """
        batch = self.batch
        same = BatchNorm(self.width, eps=self.eps, momentum=batch.momentum, masked=batch.masked).double()
        same = same.to(self.alpha.device).train(self.training)
        with torch.no_grad():
            alpha, mean, var = self.alpha.double(), batch.running_mean.double(), batch.running_var.double()
            same.running_mean.copy_(mean)
            same.running_var.copy_(var)
            same.weight.copy_(batch.weight.double() + alpha * (var + self.eps).sqrt())
            same.bias.copy_(batch.bias.double() + alpha * mean)
        return same

    def fold_into(self, linear: nn.Linear) -> tuple[Norm, nn.Linear]:
        """An identity, and the linear map with the whole norm in it; the norm must be in evaluation mode."""
        if self.training:
            raise InputError("it folds in evaluation mode only", where="prepbn", mend="call eval() first")
        return self.as_batchnorm().fold_into(linear)

    def extra_repr(self) -> str:
        """Width, eps and schedule, for ``print(module)``."""
        return f"{super().extra_repr()}, fade={self.fade}, warm={self.warm}"
