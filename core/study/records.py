"""What a study asks, and what its runs came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.application import Scored

Status = Literal["finished", "diverged", "failed"]
"""``diverged``: a loss or a weight that is not finite; ``failed``: anything else that kept a run from its end."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the settings compared.

    Attributes:
        name: as a reader sees it, such as ``model.norm=rmsnorm``.
        changes: dotted field -> value, for every field that varies; those of the baseline too.
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of one arm.

    Attributes:
        arm, seed: which.
        status: how it ended.
        reason: of one that did not finish, in a line.
        seconds: wall seconds of training, evaluations included.
        epochs, steps: trained.
        best: the validation number that training watched.
        parameters: of all its networks.
        peak_mib: most resident memory of its process.
        metrics: name -> value on the scored split.
        scored: what these are made of; None of a run that did not finish.
    """

    arm: str
    seed: int
    status: Status
    reason: str | None = None
    seconds: float = 0.0
    epochs: int = 0
    steps: int = 0
    best: float | None = None
    parameters: int = 0
    peak_mib: float = 0.0
    metrics: Mapping[str, float]
    scored: Scored | None = None
