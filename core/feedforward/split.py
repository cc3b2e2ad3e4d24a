"""A trained feed-forward divided into experts whose units fire together (EMoE, arXiv 2310.10908).

The units are clustered by their keys, the rows of ``up`` (of the gate, in a gated block) brought to length 1, into
groups of equal size, and the block is partitioned accordingly. With all experts active the function is unchanged; with
fewer, each position is mapped by those whose mean key it agrees with most.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import InputError
from core.feedforward.experts import Experts
from core.feedforward.glu import GLU
from core.feedforward.mlp import MLP
from core.feedforward.units import HiddenUnits

_ROUNDS = 30


def split_into_experts(
    dense: MLP | GLU, experts: int, active: int, *, seed: int = 0, labels: Int[Tensor, " units"] | None = None
) -> Experts:
    """The experts of ``dense``, with the average router.

    Args:
        dense: stays as it is; a GLU must have its projection.
        experts: divides the hidden units.
        active: of the experts, for each position. Published: a quarter to a half of 64.
        seed: of the clusters' first centres.
        labels: the expert of each unit, where it is known already.

    Raises:
        InputError: experts that do not divide the hidden units, more active ones than there are, labels that are not
            each expert as often, or units that read neighbours.

    >>> dense = MLP(8, 32)
    >>> split = split_into_experts(dense, experts=4, active=4)
    >>> x = torch.randn(5, 8)
    >>> torch.allclose(split(x), dense(x), atol=1e-6)
    True
    """
    if dense.reads_grid:
        why = "its units read neighbours, which other experts would have"
        raise InputError(why, where="split_into_experts", mend="split an mlp or a glu")
    if labels is None:
        labels = expert_labels(dense, experts, seed)
    elif sorted(labels.tolist()) != sorted([*range(experts)] * (dense.hidden // max(experts, 1))):
        raise InputError(f"the labels are not those of {experts} experts of equal size", where="split_into_experts")
    parts = dense.partition(labels)
    bias = parts[0].projection().bias
    # Built without memory: a draw of initial values would be wasted, and would advance the random state.
    with torch.device("meta"):
        kind: Literal["mlp", "glu"] = "glu" if isinstance(dense, GLU) else "mlp"
        split = Experts(dense.width, 1, experts=experts, active=active, expert=kind, bias=False, router="average")
    split.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    for part in parts:
        part.projection().register_parameter("bias", None)
    split.experts = nn.ModuleList(parts)
    return split.train(dense.training)


def expert_labels(dense: HiddenUnits, experts: int, seed: int = 0) -> Int[Tensor, " units"]:
    """The expert of each hidden unit: the cluster of its key, brought to length 1.

    Raises:
        InputError: experts that do not divide the hidden units.
    """
    return balanced_clusters(nn.functional.normalize(dense.keys()[0].detach().double(), dim=-1), experts, seed)


def balanced_clusters(points: Float[Tensor, "n d"], count: int, seed: int = 0) -> Int[Tensor, " n"]:
    """A label in 0, 1, ..., ``count`` - 1 for each point, each as often, by k-means with equal groups.

    Centres start at points chosen as far from one another as chance has it (k-means++). Then, in turn, the nearest
    pairs of a point and a centre that still has room are matched, and centres move to their points' means. Decided by
    the arguments alone.

    Raises:
        InputError: a count that does not divide the points.

    >>> balanced_clusters(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), 2).unique(return_counts=True)[1].tolist()
    [2, 2]
    """
    if count < 1 or len(points) % count:
        raise InputError(f"{count} groups do not divide {len(points)}", where="balanced_clusters")
    points = points.detach().double().cpu()
    centres = _first_centres(points, count, torch.Generator().manual_seed(seed))
    labels = torch.full((len(points),), -1)
    for _ in range(_ROUNDS):
        before, labels = labels, _matched(torch.cdist(points, centres), len(points) // count)
        if torch.equal(labels, before):
            break
        centres = torch.stack([points[labels == label].mean(0) for label in range(count)])
    return labels


def _first_centres(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points, each drawn with chances that grow with the squared distance from those before."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    for _ in range(count - 1):
        distance = torch.cdist(points, points[chosen]).min(1).values.square()
        chances = distance if bool(distance.any()) else torch.ones_like(distance)
        chosen.append(int(chances.multinomial(1, generator=generator)))
    return points[chosen]


def _matched(distance: Tensor, room: int) -> Tensor:
    """Labels of points by ``distance (n, count)``: the nearest pairs first, ``room`` points a centre."""
    points, count = distance.shape
    labels, free = [-1] * points, [room] * count
    for pair in distance.flatten().argsort(stable=True).tolist():
        point, centre = divmod(pair, count)
        if labels[point] < 0 and free[centre] > 0:
            labels[point] = centre
            free[centre] -= 1
    return torch.tensor(labels)
