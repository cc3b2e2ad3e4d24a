"""What the per-position maps of this room have in common: the base class and the activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, nearest


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact (erf), not the tanh approximation
    "identity": _identity,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def activation_named(name: str, where: str) -> Callable[[Tensor], Tensor]:
    """The activation called ``name``; an unknown one is an ``InputError`` that names ``where``.

    >>> activation_named("relu", "mlp")(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if name not in ACTIVATIONS:
        raise InputError(f"no activation {name!r}", where=where, mend=nearest(name, list(ACTIVATIONS)))
    return ACTIVATIONS[name]


class FeedForward(nn.Module, ABC):
    """A map applied to every position by itself: ``(...,D) -> (...,D)``.

    ``up`` alone reads x. Hidden units are ordered: unit i is row i of ``up`` (in a GLU, row i of both halves) and
    column i of ``down``, so that taking the first m units, or reordering them, is slicing.

    Args:
        width: D.
        hidden: hidden units.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        if width < 1 or hidden < 1:
            raise InputError(f"a feed-forward needs width and hidden >= 1, not {width} and {hidden}")
        self.width, self.hidden = width, hidden

    up: nn.Linear

    def input_maps(self) -> Sequence[nn.Linear]:
        """The linear maps that are all that reads x, so that a scale of x can move into them."""
        return (self.up,)

    @abstractmethod
    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
