"""The contract of a rewrite pass: a trained model becomes another one, which computes the same, or nearly so.

A pass works in two steps. ``decide`` looks at the model, and where it must at real inputs or a validation number, and
says in plain data what is to be done: which maps get which rank, which units go. ``apply`` is a function of the model
and that decision. So a saved model that was rewritten is its config, the decisions, and the tensors: loading builds the
network, applies the decisions again, which gives it its shape, and fills it (:func:`replay`).
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from core.errors import InputError

Status = Literal["exact", "exact in evaluation", "approximate"]
OptionsT = TypeVar("OptionsT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class NoOptions:
    """Of a pass that has nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a pass may look at besides the weights.

    Attributes:
        run: a model's outputs for some real inputs, computed in the dtype of its weights, in evaluation mode.
        cost: a number of the model on validation data, the lower the better.
    """

    run: Callable[[nn.Module], Tensor] | None = None
    cost: Callable[[nn.Module], float] | None = None


@dataclass(frozen=True)
class Rewrite:
    """One rewrite as plain data: the pass, and what it decided."""

    name: str
    decision: Mapping[str, Any]


class Pass(ABC, Generic[OptionsT]):
    """One kind of rewrite; instances hold nothing.

    Attributes:
        name: in :data:`core.rewrite.PASSES`.
        status: ``exact``: the same function, gradients included; ``exact in evaluation``: the same outside training;
            ``approximate``.
        line: what it does.
        source: where it is from.
        options: the dataclass of what a caller chooses.
    """

    name: ClassVar[str]
    status: ClassVar[Status]
    line: ClassVar[str]
    source: ClassVar[str]
    options: type[OptionsT]

    @abstractmethod
    def decide(self, model: nn.Module, options: OptionsT, evidence: Evidence) -> dict[str, Any]:
        """What is to be done, in plain data (JSON).

        Raises:
            InputError: the model is not one that the pass fits, or an option is out of its range.
        """

    @abstractmethod
    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The rewritten model; ``model`` stays as it is.

        ``evidence`` is absent where only the shape matters and the tensors are filled in afterwards.

        Raises:
            InputError: a decision that does not fit the model.
        """

    def statuses(self, decision: Mapping[str, Any]) -> Status:
        """The status of one decision, where it depends on it: nothing is lost by keeping all experts active."""
        return self.status

    def needs(self, evidence: Evidence, what: Literal["run", "cost"]) -> Callable[[nn.Module], Any]:
        """A part of the evidence that the pass cannot do without."""
        found = getattr(evidence, what)
        if found is None:
            raise InputError(f"cannot decide without evidence.{what}", where=self.name)
        return found  # type: ignore[no-any-return]


def replaced(model: ModuleT, modules: Mapping[str, nn.Module]) -> ModuleT:
    """A copy of ``model`` with other modules at some dotted paths; a module in several places is replaced in all.

    Raises:
        InputError: there is no module at a path.

    >>> replaced(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), {"1": nn.Tanh()})[1]
    Tanh()
    """
    old: dict[int, nn.Module] = {}
    for path, module in modules.items():
        old[id(module_at(model, path))] = module
    return copy.deepcopy(model, dict(old))


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path.

    Raises:
        InputError: there is none.
    """
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the model has no {path!r}", where="rewrite") from error


def blocks_of(model: nn.Module, kind: type[ModuleT]) -> dict[str, ModuleT]:
    """The modules of a class by their paths, each once.

    >>> [*blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear)]
    ['0']
    """
    return {path: module for path, module in model.named_modules() if isinstance(module, kind)}


def plain(options: Any) -> dict[str, Any]:
    """Options as the beginning of a decision.

    >>> plain(NoOptions())
    {}
    """
    return dataclasses.asdict(options)


def rewrites_state(rewrites: Sequence[Sequence[Rewrite]]) -> list[list[dict[str, Any]]]:
    """The rewrites of each network, as a saved model holds them.

    >>> rewrites_state([[Rewrite("fold", {"norms": ["0"]})]])
    [[{'name': 'fold', 'decision': {'norms': ['0']}}]]
    """
    return [[{"name": each.name, "decision": dict(each.decision)} for each in of_one] for of_one in rewrites]


def rewrites_from_state(state: Any, networks: int) -> tuple[tuple[Rewrite, ...], ...]:
    """The rewrites of each of so many networks; none where the saved model says nothing of them.

    Raises:
        InputError: the state is of another form.
    """
    if state is None:
        return ((),) * networks
    try:
        found = tuple(tuple(Rewrite(str(each["name"]), dict(each["decision"])) for each in of_one) for of_one in state)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"does not say how the model was rewritten ({error!r})", where="rewrites") from error
    if len(found) != networks:
        raise InputError(f"{len(found)} networks were rewritten of {networks}", where="rewrites")
    return found
