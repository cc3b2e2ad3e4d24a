"""The two-layer feed-forward of the transformer (Vaswani et al., arXiv 1706.03762).

    y = down(dropout(activation(up(x)))),   up: D -> hidden, down: hidden -> D

Initialisation: both weights U(-1/sqrt(fan_in), 1/sqrt(fan_in)), variance 1/(3 fan_in); biases zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from core.feedforward.activations import activation_named
from core.feedforward.units import HiddenUnits
from core.initialisation import uniform_fan_in_
from core.kernels import Dropout


class MLP(HiddenUnits):
    """Two linear maps with an activation between them.

    Args:
        width: D.
        hidden: hidden units; row i of ``up`` and column i of ``down`` are unit i.
        activation: one of ``core.feedforward.ACTIVATIONS``, or ``starrelu``.
        bias: biases in both maps.
        dropout: probability of dropping a hidden unit, in training.
        nested: shares of the hidden units, of which each training step uses one.

    Raises:
        InputError: an unknown activation, a size below one, or a share outside (0, 1].

    >>> import torch
    >>> MLP(8, 32, activation="relu")(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    source = "Vaswani et al., arXiv 1706.03762"
    cost = "2 N D hidden"

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
        nested: Sequence[float] = (),
    ) -> None:
        super().__init__(width, hidden, nested)
        self.activation = activation
        self.activate = activation_named(activation, "mlp")
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = Dropout(dropout)
        uniform_fan_in_(self.up, 1.0)
        uniform_fan_in_(self.down, 1.0)

    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
        count = self.active()
        return self._write(self.dropout(self.activate(self._read(x, count))), count)

    def extra_repr(self) -> str:
        """The activation, for ``print(module)``."""
        return f"activation={self.activation}"
