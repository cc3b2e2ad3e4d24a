"""The non-linearities that feed-forwards name in their options; one of them is learned.

StarReLU (Yu et al., MetaFormer baselines, arXiv 2210.13452)::

    s relu(x)^2 + b,   s and b learned scalars

starts, as released, at s = 1 and b = 0. With s = 1/sqrt(1.25) and b = -0.5/sqrt(1.25) the result has mean 0 and
variance 1 where x is standard normal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, nearest


def _identity(x: Tensor) -> Tensor:
    return x


class StarReLU(nn.Module):
    """A squared ReLU with a learned scale and shift.

    Args:
        scale: s at the start.
        bias: b at the start.

    >>> StarReLU(2.0, -1.0)(torch.tensor([-3.0, 0.0, 3.0])).tolist()
    [-1.0, -1.0, 17.0]
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"scale": "gain", "bias": "bias"}

    def __init__(self, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply it to every number."""
        return self.scale * F.relu(x).square() + self.bias


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact (erf), not the tanh approximation
    "identity": _identity,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}

LEARNED_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"starrelu": StarReLU}


def activation_named(name: str, where: str) -> Callable[[Tensor], Tensor]:
    """The activation called ``name``, a new module if it is learned; an unknown one is an ``InputError`` at ``where``.

    >>> activation_named("relu", "mlp")(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if name in LEARNED_ACTIVATIONS:
        return LEARNED_ACTIVATIONS[name]()
    if name not in ACTIVATIONS:
        known = [*ACTIVATIONS, *LEARNED_ACTIVATIONS]
        raise InputError(f"no activation {name!r}", where=where, mend=nearest(name, known))
    return ACTIVATIONS[name]
