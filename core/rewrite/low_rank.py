"""Linear maps of low rank (Low-Rank Transformer: Winata et al., ICASSP 2020; Greenformers).

    y = D (E x) + b,   E in R^(r x m), D in R^(n x r)         r (m + n) + n parameters instead of m n + n

which is fewer below the break-even rank m n / (m + n). A trained map W is replaced by its best approximation of that
rank, from the singular value decomposition W = U S V^T (Eckart and Young): E = S_r V_r^T, D = U_r; the error, in the
Frobenius norm, is that of the singular values left out.

Activation-aware (ours, after the data-aware approximations in the literature [U]): what should be small is the error of
the results, ||(W - D E) X||, for the inputs X that the map meets. With X X^T = L L^T it is the same approximation of
W L, and E is brought back by L^-1. Directions that the inputs do not have cost nothing then.

Computed in float64 and cast once. The public program, github.com/SamuelCahyawijaya/greenformer, factorises with random
starts by default, and its singular values are approximate; not taken over: its other solvers, and convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.initialisation import uniform_fan_in_
from core.rewrite.base import Evidence, ModuleT, Pass, replaced
from core.rewrite.decisions import block_at, part, whole
from core.rewrite.maps import chosen_maps

# Of the mean squared input, added to every direction: inputs that span fewer than m directions leave L singular.
_RIDGE = 1e-6


def break_even_rank(inputs: int, outputs: int) -> int:
    """The highest rank at which a map from m to n numbers has no more weights than a full one.

    >>> break_even_rank(256, 1024)
    204
    """
    return inputs * outputs // (inputs + outputs)


class LowRankLinear(nn.Module):
    """A linear map through r numbers; the bias is in the second factor.

    Args:
        inputs: m.
        outputs: n.
        rank: r.
        bias: whether there is b.

    Raises:
        InputError: a rank below 1.

    >>> sum(p.numel() for p in LowRankLinear(8, 6, 2).parameters())
    34
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"the rank must be at least 1, not {rank}", where="low_rank")
        self.first, self.second = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias)
        uniform_fan_in_(self.first)
        uniform_fan_in_(self.second)

    @classmethod
    def of(cls, linear: nn.Linear, rank: int, moment: Float[Tensor, "m m"] | None = None) -> LowRankLinear:
        """The best approximation of ``linear`` of that rank, with its bias, dtype and device.

        Args:
            linear: W and b.
            rank: r.
            moment: mean of x x^T over the inputs whose results should be near; all directions alike without it.
        """
        low = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None).to(linear.weight)
        with torch.no_grad():
            weight, root = linear.weight.double(), None if moment is None else _root(moment)
            left, values, right = torch.linalg.svd(weight if root is None else weight @ root, full_matrices=False)
            first = values[:, None] * right
            if root is not None:
                first = torch.linalg.solve_triangular(root, first, upper=False, left=False)
            kept = min(rank, len(values))
            # Beyond the full rank there is nothing to approximate: the rest of the factors is zero.
            low.first.weight.zero_()[:kept].copy_(first[:kept])
            low.second.weight.zero_()[:, :kept].copy_(left[:, :kept])
            if linear.bias is not None:
                low.second.bias.copy_(linear.bias)
        return low.train(linear.training)

    def forward(self, x: Float[Tensor, "*shape m"]) -> Float[Tensor, "*shape n"]:
        """Map every vector."""
        y: Tensor = self.second(self.first(x))
        return y


def _root(moment: Tensor) -> Tensor:
    """L with L L^T = the moment, lower triangular, in float64."""
    moment = moment.double()
    ridge = _RIDGE * moment.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    root: Tensor = torch.linalg.cholesky(moment + ridge * torch.eye(len(moment)).to(moment))
    return root


@dataclass(frozen=True, kw_only=True)
class LowRankOptions:
    """What to factorise, and how far."""

    rank: float = 0.5
    """1 or more: that rank; less: this share of the break-even rank, m n / (m + n)."""
    maps: tuple[str, ...] = ()
    """Patterns of names, such as qkv or before.*; all maps by which blocks read and write unless given."""
    aware: bool = False
    """Weigh directions by the inputs that the maps meet."""


class LowRank(Pass[LowRankOptions]):
    """Linear maps become products of two, where that makes them smaller."""

    name = "low_rank"
    status = "approximate"
    line = "linear maps become products of two narrow ones, by singular values"
    source = "Winata et al., ICASSP 2020; Greenformers"
    options = LowRankOptions

    def decide(self, model: nn.Module, options: LowRankOptions, evidence: Evidence) -> dict[str, Any]:
        """The rank of each map that gets one."""
        if not options.rank > 0:
            raise InputError(f"the rank must be positive, not {options.rank:g}", where=self.name)
        if options.aware:
            self.needs(evidence, "run")
        ranks: dict[str, int] = {}
        for path, linear in chosen_maps(model, options.maps, self.name).items():
            if type(linear) is not nn.Linear:
                continue
            inputs, outputs = linear.in_features, linear.out_features
            wanted = options.rank if options.rank >= 1 else max(1, options.rank * break_even_rank(inputs, outputs))
            if int(wanted) * (inputs + outputs) < inputs * outputs:
                ranks[path] = int(wanted)
        if not ranks:
            raise InputError("no map would be smaller", where=self.name, mend="give a lower rank")
        return {"ranks": ranks, "aware": options.aware}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model with the factors in place of the maps."""
        ranks, aware = part(decision, "ranks", dict, self.name), part(decision, "aware", bool, self.name)
        linears = {path: block_at(model, path, nn.Linear, "linear map") for path in ranks}
        moments: Mapping[str, Tensor] = {}
        if aware and evidence is not None and evidence.run is not None:
            moments = input_moments(model, evidence, linears)
        made: dict[str, nn.Module] = {}
        for path, linear in linears.items():
            rank = whole(ranks[path], 1, min(linear.in_features, linear.out_features), path)
            made[path] = LowRankLinear.of(linear, rank, moments.get(path))
        return replaced(model, made)


def input_moments(model: nn.Module, evidence: Evidence, linears: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Mean of x x^T over the vectors that each of ``linears`` is given when the evidence runs, in float64.

    Vectors that are zero throughout, as padding is, count nowhere.
    """
    assert evidence.run is not None
    sums = {path: torch.zeros((), dtype=torch.float64) for path in linears}
    counts = dict.fromkeys(linears, 0)

    def watch(path: str) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].detach().flatten(0, -2).double()
            sums[path] = sums[path] + rows.T @ rows
            counts[path] += int(rows.any(dim=1).sum())

        return hook

    hooks = [linear.register_forward_pre_hook(watch(path)) for path, linear in linears.items()]
    try:
        with torch.no_grad():
            evidence.run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return {path: total / counts[path] for path, total in sums.items() if counts[path]}
