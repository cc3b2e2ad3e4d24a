"""The two-layer feed-forward of the transformer (Vaswani et al., arXiv 1706.03762).

    y = down(dropout(activation(up(x)))),   up: D -> hidden, down: hidden -> D

Initialisation: both weights U(-1/sqrt(fan_in), 1/sqrt(fan_in)), variance 1/(3 fan_in); biases zero.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from core.feedforward.base import FeedForward, activation_named
from core.initialisation import uniform_fan_in_
from core.kernels import Dropout


class MLP(FeedForward):
    """Two linear maps with an activation between them.

    Args:
        width: D.
        hidden: hidden units; row i of ``up`` and column i of ``down`` are unit i.
        activation: one of ``core.feedforward.ACTIVATIONS``.
        bias: biases in both maps.
        dropout: probability of dropping a hidden unit, in training.

    Raises:
        InputError: an unknown activation, or a size below one.

    >>> import torch
    >>> MLP(8, 32, activation="relu")(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, width: int, hidden: int, *, activation: str = "gelu", bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(width, hidden)
        self.activation = activation
        self._activate = activation_named(activation, "mlp")
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = Dropout(dropout)
        uniform_fan_in_(self.up, 1.0)
        uniform_fan_in_(self.down, 1.0)

    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
        y: Tensor = self.down(self.dropout(self._activate(self.up(x))))
        return y

    def extra_repr(self) -> str:
        """The activation, for ``print(module)``."""
        return f"activation={self.activation}"
