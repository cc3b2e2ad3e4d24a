"""Rewriting with a check: what a pass says of itself is compared with what it did, on real inputs.

An exact pass must reproduce the outputs in float64 to 1e-10, and in float32 to 1e-5, both relative to the largest
output where that is above 1. One that does not is refused: nothing is handed out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from core.errors import InputError, nearest
from core.rewrite.base import Evidence, Pass, Rewrite, Status
from core.rewrite.passes import PASSES

ModuleT = TypeVar("ModuleT", bound=nn.Module)
EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest difference of outputs that an exact pass may make, relative to the largest output where that is above 1."""


class Inexact(RuntimeError):
    """A pass that calls itself exact changed the outputs: a mistake in it."""


@dataclass(frozen=True, kw_only=True)
class Rewritten(Generic[ModuleT]):
    """A rewritten model.

    Attributes:
        model: in evaluation mode.
        rewrite: what was done, in plain data.
        status: what it promises.
        change64: largest difference of outputs in float64, relative to the largest output where that is above 1; None
            where there were no inputs to compare by.
        change32: the same in float32.
    """

    model: ModuleT
    rewrite: Rewrite
    status: Status
    change64: float | None
    change32: float | None


def rewrite(model: ModuleT, name: str, options: Any = None, evidence: Evidence | None = None) -> Rewritten[ModuleT]:
    """Apply a pass to a trained model, and check what it promises.

    Args:
        model: stays as it is.
        name: of the pass, in :data:`core.rewrite.PASSES`.
        options: of the pass; its defaults unless given.
        evidence: real inputs, and a validation number, for passes that need them; with inputs the result is checked.

    Raises:
        InputError: no such pass, or a model that it does not fit.
        Inexact: the pass calls itself exact and is not.
    """
    chosen = pass_named(name)
    evidence = evidence or Evidence()
    before = copy.deepcopy(model).eval()
    decision = chosen.decide(before, chosen.options() if options is None else options, evidence)
    after = chosen.apply(before, decision, evidence).eval()
    status = chosen.statuses(decision)
    changes: dict[torch.dtype, float | None] = dict.fromkeys(EXACT)
    if evidence.run is not None:
        # What is folded is rounded to the dtype of the weights: in float64 the whole pass has to run in it.
        exact = copy.deepcopy(before).double()
        changes[torch.float64] = _change(exact, chosen.apply(exact, decision, evidence), evidence.run)
        changes[torch.float32] = _change(before.float(), copy.deepcopy(after).float(), evidence.run)
    for kind, change in changes.items():
        if status != "approximate" and change is not None and not change <= EXACT[kind]:
            raise Inexact(f"{name} is {status}, and moved an output by {change:.3g} in {kind}")
    return Rewritten(
        model=after,
        rewrite=Rewrite(name, decision),
        status=status,
        change64=changes[torch.float64],
        change32=changes[torch.float32],
    )


def replay(model: ModuleT, rewrites: Sequence[Rewrite]) -> ModuleT:
    """Give a newly built model the shape that earlier rewrites gave; its tensors are filled in afterwards.

    Raises:
        InputError: an unknown pass, or a decision that does not fit the model.
    """
    for each in rewrites:
        model = pass_named(each.name).apply(model, each.decision)
    return model


def pass_named(name: str) -> Pass[Any]:
    """The pass of that name; an ``InputError`` with the nearest where there is none."""
    if name not in PASSES:
        raise InputError(f"no pass {name!r}", where="rewrite", mend=nearest(name, list(PASSES)))
    return PASSES[name]


@torch.no_grad()
def _change(before: nn.Module, after: nn.Module, run: Callable[[nn.Module], Tensor]) -> float:
    """The largest difference of outputs, relative to the largest output where that is above 1."""
    a, b = (run(model.eval()) for model in (before, after))
    if a.shape != b.shape:
        raise InputError(f"outputs of shape {tuple(a.shape)} became {tuple(b.shape)}", where="rewrite")
    if a.numel() == 0:
        return 0.0
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))
