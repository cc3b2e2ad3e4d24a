"""How far a training has come, told to the modules whose training depends on it.

A schedule inside a model (the share of a norm that fades out, a warm-up, the size of a nested block) is a function of
the step, which the engine tells before each one. No module counts its own forward passes: accumulated gradients, a
block that is applied twice, or a resumed run would make such a count wrong, and nobody would notice.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from core.errors import InputError


@runtime_checkable
class Stepped(Protocol):
    """A module whose training depends on the step."""

    def at_step(self, step: int, of: int) -> None:
        """The next forward passes belong to step ``step`` (0, 1, ...) of ``of``."""
        ...


def advance(model: nn.Module, step: int, of: int) -> None:
    """Tell every :class:`Stepped` module of ``model``, itself included, which step comes next.

    Args:
        model: what is trained.
        step: 0 for the first one.
        of: steps of the whole training; one that goes on longer stays at the end of its schedules.

    Raises:
        InputError: a negative step, or a training of none.

    >>> advance(nn.Linear(2, 2), 0, 100)
    """
    if step < 0 or of < 1:
        raise InputError(f"no step {step} of {of}", where="advance", mend="0 <= step, 1 <= of")
    for module in stepped(model):
        module.at_step(step, of)


def stepped(model: nn.Module) -> list[Stepped]:
    """The :class:`Stepped` modules of ``model``, itself included: looked for once, where every step is told.

    >>> stepped(nn.Linear(2, 2))
    []
    """
    return [module for module in model.modules() if isinstance(module, Stepped)]


def untold(where: str) -> InputError:
    """What a module says that is trained and was never told a step.

    >>> print(untold("prepbn"))
    prepbn: does not know how far its training has come; call core.clock.advance(model, step, of) before each step
    """
    return InputError(
        "does not know how far its training has come",
        where=where,
        mend="call core.clock.advance(model, step, of) before each step",
    )
