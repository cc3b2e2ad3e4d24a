"""Gated linear units (Dauphin et al., arXiv 1612.08083; the family in transformers: Shazeer, arXiv 2002.05202).

    [value; gate] = up(x),   y = down(dropout(value * activation(gate))),   up: D -> 2 hidden, down: hidden -> D

The activation names the member: sigmoid (GLU), identity (bilinear), relu (ReGLU), gelu (GEGLU), silu (SwiGLU), tanh
(ExcelFormer, arXiv 2301.02819). One linear map makes both halves: its first ``hidden`` rows are the value, the others
the gate. Implementations disagree on this order; swap the halves of weights from one that gates with the first half.

``project=False`` leaves out ``down`` (ExcelFormer's form).

Initialisation: ``up`` U(-s/sqrt(D), s/sqrt(D)) with s = ``init_scale``; ``down`` the same form with s = 1 and its own
fan-in; biases zero. ExcelFormer attenuates with s = 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.feedforward.activations import activation_named
from core.feedforward.units import HiddenUnits
from core.initialisation import uniform_fan_in_
from core.kernels import Dropout


class GLU(HiddenUnits):
    """A gated linear unit.

    Args:
        width: D.
        hidden: hidden units; unit i is rows i and ``hidden + i`` of ``up`` and column i of ``down``.
        activation: of the gate; one of ``core.feedforward.ACTIVATIONS``, or ``starrelu``.
        bias: biases in both maps.
        dropout: probability of dropping a product ``value * activation(gate)``, in training.
        project: False returns the product itself, which needs ``hidden == width``.
        init_scale: s of the range that ``up`` is drawn from.
        nested: shares of the hidden units, of which each training step uses one; needs the projection.

    Raises:
        InputError: an unknown activation, a size below one, a share outside (0, 1], or ``project=False`` with
            ``hidden != width`` or with ``nested``.

    >>> import torch
    >>> GLU(8, 8, activation="tanh", project=False)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    gates: ClassVar[int] = 2
    source = "Dauphin et al., arXiv 1612.08083; Shazeer, arXiv 2002.05202"
    cost = "3 N D hidden; 2 N D hidden without the projection"

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "silu",
        bias: bool = True,
        dropout: float = 0.0,
        project: bool = True,
        init_scale: float = 1.0,
        nested: Sequence[float] = (),
    ) -> None:
        super().__init__(width, hidden, nested)
        if not project and hidden != width:
            raise InputError(
                f"project=False needs hidden == width, not {hidden} and {width}",
                where="glu",
                mend="set hidden to the width",
            )
        if nested and not project:
            raise InputError("nested shares need the projection", where="glu", mend="set project=True")
        self.activation = activation
        self.activate = activation_named(activation, "glu")
        self.up = nn.Linear(width, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias) if project else nn.Identity()
        self.dropout = Dropout(dropout)
        uniform_fan_in_(self.up, init_scale)
        if isinstance(self.down, nn.Linear):
            uniform_fan_in_(self.down, 1.0)

    def forward(self, x: Float[Tensor, "*positions D"]) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``."""
        count = self.active()
        value, gate = self._read(x, count).chunk(2, dim=-1)
        return self._write(self.dropout(value * self.activate(gate)), count)

    def extra_repr(self) -> str:
        """The activation, for ``print(module)``."""
        return f"activation={self.activation}"
