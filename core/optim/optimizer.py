"""One optimiser whose groups each follow a rule of their own.

A group's ``kind`` names its rule in :data:`KINDS`; a new rule is one more file and one more line in that table. One
object (rather than a list of optimisers) means one schedule, one clipping, one checkpoint. All state exists from
construction, also for parameters that never see a gradient, so that every process of a distributed run, and every
checkpoint, holds the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from core.errors import InputError, nearest
from core.optim import adamw


@dataclass(frozen=True)
class Rule:
    """What a kind is made of.

    Attributes:
        defaults: its hyper-parameters and their default values; any other name in a group is refused.
        check: raises :class:`InputError` on a value out of range.
        init: the state of one parameter.
        step: updates parameters that all have a gradient, given their states and their group.
    """

    defaults: Mapping[str, Any]
    check: Callable[[Mapping[str, Any]], None]
    init: Callable[[Tensor], dict[str, Tensor]]
    step: Callable[[Sequence[Tensor], Sequence[Mapping[str, Tensor]], Mapping[str, Any]], None]


KINDS: dict[str, Rule] = {
    "adamw": Rule(defaults=adamw.DEFAULTS, check=adamw.check, init=adamw.init, step=adamw.step),
}

# Keys of a group that are not hyper-parameters: torch's own, and the label that routing puts on for reports.
_STRUCTURE = ("params", "param_names", "kind", "name")


class Optimizer(torch.optim.Optimizer):
    """The optimiser of every model here.

    Args:
        groups: dicts with ``params``, ``kind`` and that kind's hyper-parameters (missing ones take their defaults), as
            :meth:`core.optim.Routing.groups` makes them; ``name`` is a free label.

    Raises:
        InputError: an unknown kind, a hyper-parameter the kind does not know, or a value out of range.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = Optimizer([{"params": [weight], "kind": "adamw", "lr": 0.1, "weight_decay": 0.0}])
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.data
    tensor([0.9000, 0.9000])
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, defaults={})  # calls add_param_group for each

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyper-parameters are completed and checked as at construction."""
        group = _complete(param_group)
        super().add_param_group(group)
        for parameter in group["params"]:
            self.state[parameter] = KINDS[group["kind"]].init(parameter)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; ``closure``, when given, computes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                KINDS[group["kind"]].step(parameters, [self.state[parameter] for parameter in parameters], group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy a :meth:`state_dict` in, exactly.

        torch's own version would round float32 moments to the type of a 16-bit parameter, so the values are copied into
        the tensors that exist already.

        Raises:
            InputError: the groups or the states do not match this optimiser's.
        """
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        if [len(group["params"]) for group in saved_groups] != [len(group["params"]) for group in self.param_groups]:
            raise InputError("the saved optimiser has other parameter groups than this one")
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            for parameter, index in zip(group["params"], saved_group["params"], strict=True):
                _copy_state(self.state[parameter], saved_state[index])
            group.update({key: value for key, value in saved_group.items() if key != "params"})


def _copy_state(target: dict[str, Tensor], source: Mapping[str, Tensor]) -> None:
    if {key: value.shape for key, value in target.items()} != {key: value.shape for key, value in source.items()}:
        raise InputError("the saved optimiser state has other names or shapes than this model needs")
    for key, value in source.items():
        target[key].copy_(value)


def _complete(group: dict[str, Any]) -> dict[str, Any]:
    """The group with its kind's defaults filled in, and every name and value checked."""
    kind = group.get("kind")
    if kind not in KINDS:
        raise InputError(f"no optimiser kind {kind!r}", where="kind", mend=nearest(str(kind), list(KINDS)))
    rule = KINDS[kind]
    for key in group:
        if key not in rule.defaults and key not in _STRUCTURE:
            raise InputError(f"{kind} has no hyper-parameter {key!r}", mend=nearest(key, list(rule.defaults)))
    complete = {**rule.defaults, **group}
    rule.check(complete)
    return complete
