"""The unit of Activator (arXiv 2405.15953): a gated feed-forward whose two branches are normalised by one layer norm.

    [u; v] = up(x),   y = down(dropout(n(activation(u)) * n(v))),   up: D -> 2 hidden, n over hidden, down: hidden -> D

Published in the place of attention, the released unit treats every token by itself: it mixes nothing along the
sequence, and is therefore a feed-forward here. The norm ties the hidden units of a token together, so that a choice of
them is another function: there is no slicing. Gelu as released; silu and relu are the ablations of its program.

Initialisation: as a GLU's, weights U(-1/sqrt(fan_in), 1/sqrt(fan_in)), biases zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.feedforward.activations import activation_named
from core.feedforward.base import FeedForward
from core.initialisation import uniform_fan_in_
from core.kernels import Dropout


class Activator(FeedForward):
    """A gated linear unit with a layer norm on both factors.

    Args:
        width: D.
        hidden: hidden units.
        activation: of the first branch; one of ``core.feedforward.ACTIVATIONS``, or ``starrelu``.
        bias: biases in the linear maps.
        dropout: probability of dropping a product, in training.
        eps: of the norm.

    Raises:
        InputError: an unknown activation, or a size below one.

    >>> sum(p.numel() for p in Activator(8, 5).parameters()) == 3 * 8 * 5 + (2 * 5 + 8) + 2 * 5
    True
    """

    source = "Activator, arXiv 2405.15953"
    cost = "3 N D hidden; two layer norms of the hidden units"

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(width)
        if hidden < 1:
            raise InputError(f"a feed-forward needs hidden >= 1, not {hidden}")
        self.hidden, self.activation = hidden, activation
        self.activate = activation_named(activation, "activator")
        self.up = nn.Linear(width, 2 * hidden, bias=bias)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = Dropout(dropout)
        uniform_fan_in_(self.up)
        uniform_fan_in_(self.down)

    def input_maps(self) -> Sequence[nn.Module]:
        """``up``."""
        return (self.up,)

    def output_maps(self) -> Sequence[nn.Module]:
        """``down``."""
        return (self.down,)

    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
        u, v = self.up(x).chunk(2, dim=-1)
        y: Tensor = self.down(self.dropout(self.norm(self.activate(u)) * self.norm(v)))
        return y

    def extra_repr(self) -> str:
        """The activation, for ``print(module)``."""
        return f"activation={self.activation}"
