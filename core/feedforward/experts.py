"""A mixture of experts: each position is mapped by the few feed-forwards that a router chooses for it, weighted.

    y = sum over kept e of g_e(x) expert_e(x) [+ b],   kept: the ``active`` experts of the highest scores

``router="softmax"`` (Shazeer et al., arXiv 1701.06538; as in WideNet, arXiv 2107.11817): scores are a learned linear
map without bias, made uneven in training by noise of standard deviation ``noise``/E; g_e is the softmax over all E
experts, not renormalised over the kept ones unless ``renormalise``. Experts have biases of their own. In training it
contributes (:mod:`core.auxiliary`) the loss of balance

    balance * E * sum over e of f_e P_e,   f_e = share of the choices that fell on e, P_e = mean of g_e over positions

which is ``balance`` where the experts are used evenly.

``router="average"`` (EMoE, arXiv 2310.10908): nothing is learned. The score of an expert is the mean over its units of
what their gates are before the activation; g_e = 1, and one bias b stands for all experts, so that all E of them
together are one plain feed-forward (:func:`core.feedforward.split_into_experts`, :meth:`Experts.merge`).

Nothing is dropped, and a position's result depends on no other, unless ``capacity`` is given: then in training an
expert takes ceil(capacity * positions * active / E) positions, in order, and those beyond lose this expert only; the
gates of their others stay as they are. Scores are computed in float32 at least. Masked positions are mapped by no
expert and count nowhere.

Deviations from the released programs: WideNet's counts one slot less and drops by position, not by position and expert;
EMoE's spreads b over the kept experts, and gives the router no bias where the gates have one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.auxiliary import contribute
from core.errors import InputError
from core.feedforward.base import FeedForward
from core.feedforward.glu import GLU
from core.feedforward.mlp import MLP
from core.feedforward.units import HiddenUnits
from core.initialisation import uniform_fan_in_

Router = Literal["softmax", "average"]
_KINDS: dict[str, type[MLP | GLU]] = {"glu": GLU, "mlp": MLP}


class Experts(FeedForward):
    """The few feed-forwards that a router chooses for a position, weighted.

    Args:
        width: D.
        hidden: hidden units of each expert.
        experts: E.
        active: experts that map a position.
        expert: kind of each expert, ``mlp`` or ``glu``.
        activation: of the experts; None is the usual one of their kind.
        bias: biases in the experts, or with the average router in their first maps and b.
        dropout: of the experts' hidden units, in training.
        router: how scores and gates are made.
        renormalise: divide the softmax gates by the sum of the kept ones.
        noise: of the softmax router in training, in units of 1/E.
        balance: weight of the loss of balance; 0 contributes none.
        capacity: positions an expert takes in training, in units of the even share; None takes all.

    Raises:
        InputError: more active experts than there are, an unknown word, or what an expert refuses.

    >>> block = Experts(8, 16, experts=4, active=2)
    >>> block(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    reads_mask: ClassVar[bool] = True
    parameter_roles: ClassVar[Mapping[str, str]] = {"bias": "bias"}
    source = "Shazeer et al., arXiv 1701.06538; the average router: EMoE, arXiv 2310.10908"
    cost = "N D experts + 2 N D hidden active; with 'glu' experts half as much again"

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        experts: int = 4,
        active: int = 2,
        expert: Literal["mlp", "glu"] = "mlp",
        activation: str | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        router: Router = "softmax",
        renormalise: bool = False,
        noise: float = 1.0,
        balance: float = 0.01,
        capacity: float | None = None,
    ) -> None:
        super().__init__(width)
        if not 1 <= active <= experts:
            raise InputError(f"{active} of {experts} experts cannot be active", where="experts")
        if expert not in _KINDS or router not in ("softmax", "average"):
            known = "experts are mlp or glu, routers softmax or average"
            raise InputError(f"no expert {expert!r} with the router {router!r}", where="experts", mend=known)
        if noise < 0 or balance < 0 or (capacity is not None and not capacity > 0):
            raise InputError(f"noise {noise}, balance {balance} or capacity {capacity} is too small", where="experts")
        self.active, self.renormalise, self.noise = active, renormalise, noise
        self.balance, self.capacity = balance, capacity
        options: dict[str, Any] = {} if activation is None else {"activation": activation}
        made = [_KINDS[expert](width, hidden, bias=bias, dropout=dropout, **options) for _ in range(experts)]
        self.experts = nn.ModuleList(made)
        self.router = nn.Linear(width, experts, bias=False) if router == "softmax" else None
        self.bias: nn.Parameter | None = None
        if self.router is not None:
            uniform_fan_in_(self.router)
        else:
            self.bias = nn.Parameter(torch.zeros(width)) if bias else None
            for each in made:
                each.projection().register_parameter("bias", None)

    def input_maps(self) -> Sequence[nn.Module]:
        """The first maps of the experts, and the router's."""
        maps = [block.up for block in self._blocks()]
        return maps if self.router is None else [*maps, self.router]

    def output_maps(self) -> Sequence[nn.Module]:
        """The last maps of the experts; none with the average router, whose bias is added by the way."""
        return () if self.router is None else [block.down for block in self._blocks()]

    def forward(
        self, x: Float[Tensor, "*positions D"], mask: Bool[Tensor, "*positions"] | None = None
    ) -> Float[Tensor, "*positions D"]:
        """Map every position of ``x (...,D)``; where ``mask`` is False, to the bias alone."""
        rows, real = x.reshape(-1, self.width), None if mask is None else mask.reshape(-1, 1)
        rows = rows if real is None else rows.masked_fill(~real, 0.0)
        gates = self.gates(rows, real)
        y = self._dense(rows, gates) if torch.compiler.is_compiling() else self._gathered(rows, gates)
        if self.bias is not None:
            y = y + self.bias
        return y.view(x.shape)

    def gates(self, rows: Float[Tensor, "n D"], real: Bool[Tensor, "n 1"] | None = None) -> Float[Tensor, "n E"]:
        """The weight of every expert for every row: zero where it is not kept."""
        scores = self.scores(rows)
        if self.router is not None and self.training and self.noise > 0:
            scores = scores + torch.randn_like(scores) * (self.noise / len(self.experts))
        best = scores.topk(self.active, dim=-1).indices
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True)
        kept = kept if real is None else kept & real
        if self.router is None:
            return self._within_capacity(kept, real).to(scores.dtype)
        chances = scores.softmax(-1)
        if self.training and self.balance > 0:
            self._contribute_balance(kept, chances, real)
        gates = chances / chances.gather(-1, best).sum(-1, keepdim=True) if self.renormalise else chances
        return torch.where(self._within_capacity(kept, real), gates, 0.0)

    def scores(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, "n E"]:
        """Of every expert for every row, in float32 at least."""
        kind = torch.promote_types(rows.dtype, torch.float32)
        if self.router is not None:
            bias = self.router.bias
            return F.linear(rows.to(kind), self.router.weight.to(kind), None if bias is None else bias.to(kind))
        keys = [block.keys() for block in self._blocks()]
        weight = torch.stack([rows_of.to(kind).mean(0) for rows_of, _ in keys])
        shifts = [shift.to(kind).mean() for _, shift in keys if shift is not None]
        return F.linear(rows.to(kind), weight, torch.stack(shifts) if shifts else None)

    def _within_capacity(self, kept: Tensor, real: Tensor | None) -> Tensor:
        if self.capacity is None or not self.training:
            return kept
        positions = len(kept) if real is None else int(real.sum())
        most = max(1, math.ceil(self.capacity * positions * self.active / len(self.experts)))
        return kept & (kept.cumsum(0) <= most)

    def _contribute_balance(self, kept: Tensor, chances: Tensor, real: Tensor | None) -> None:
        weight = torch.ones_like(chances[:, :1]) if real is None else real.to(chances.dtype)
        positions = weight.sum().clamp(min=1.0)
        shares = kept.to(chances.dtype).sum(0) / (positions * self.active)
        means = (chances * weight).sum(0) / positions
        contribute(self.balance * len(self.experts) * (shares * means).sum())

    def _gathered(self, rows: Tensor, gates: Tensor) -> Tensor:
        """Each expert on the rows that it is kept for."""
        y = rows.new_zeros(rows.shape)
        for expert, gate in zip(self.experts, gates.unbind(-1), strict=True):
            chosen = (gate != 0).nonzero().squeeze(1)
            part = expert(rows.index_select(0, chosen)) * gate[chosen, None].to(rows.dtype)
            y = y.index_add(0, chosen, part.to(y.dtype))
        return y

    def _dense(self, rows: Tensor, gates: Tensor) -> Tensor:
        """The same with every expert on every row: for graphs, whose shapes cannot depend on numbers."""
        parts = [expert(rows) for expert in self.experts]
        return (torch.stack(parts, dim=-1) * gates[:, None, :].to(rows.dtype)).sum(-1)

    def _blocks(self) -> list[HiddenUnits]:
        return [block for block in self.experts if isinstance(block, HiddenUnits)]

    def merge(self) -> HiddenUnits:
        """The plain feed-forward that computes what all experts together do, their units one after the other.

        Raises:
            InputError: a softmax router, whose weights no plain feed-forward has.
        """
        if self.router is not None:
            raise InputError("experts weighted by a softmax are no plain feed-forward", where="experts")
        whole = HiddenUnits.join(self._blocks())
        if self.bias is not None:
            whole.projection().bias = nn.Parameter(self.bias.detach().clone())
        return whole

    def extra_repr(self) -> str:
        """Routing, for ``print(module)``."""
        kind = "average" if self.router is None else "softmax"
        return f"active={self.active}, router={kind}, renormalise={self.renormalise}, capacity={self.capacity}"
