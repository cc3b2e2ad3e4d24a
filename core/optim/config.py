"""The optimiser's settings, as a person gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.optim.optimizer import Optimizer
from core.optim.routing import Rules, route


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Hyper-parameters of the optimiser."""

    kind: str = "adamw"
    """Update rule."""
    lr: float = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and heads; other roles are not decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the gradient's running mean and of its running square."""
    eps: float = 1e-8
    """Added to the denominator of the update."""

    def build(
        self, model: nn.Module, rules: Rules = (), overrides: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Optimizer:
        """The optimiser of ``model``, its parameters routed by :func:`core.optim.route`.

        Args:
            model: whose trainable parameters are optimised.
            rules: ``(name pattern, role)`` pairs.
            overrides: role -> hyper-parameters that differ there.

        >>> optimizer = OptimConfig(lr=0.5).build(nn.Linear(2, 3))
        >>> [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        [('matrix', 0.5, 0.01), ('bias', 0.5, 0.0)]
        """
        routing = route(model, rules)
        return Optimizer(
            routing.groups(self.lr, self.weight_decay, overrides, kind=self.kind, betas=self.betas, eps=self.eps)
        )
