"""Which epoch a rule would have kept that sees no label of the target, measured against the labels.

A run made with ``show_target`` has the target's mIoU beside every number that could have picked its weights. For each
rule: the epoch it picks, as training does (the first of those that are best), the target's mIoU there, and what that
falls short of the best epoch by. The rank correlation says whether a rule orders epochs as the labels do: Spearman's
over all epochs, with the sign that makes 1 the same order.

``last`` is the rule of the papers: the end, whatever was seen; its number is the epoch itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.watch import GREATER_IS_BETTER
from core.command import RunDirectory, read_history

TARGET = "target_miou"
LAST = "last"
_FEWEST = 3
"""Epochs below which an order says nothing."""


@dataclass(frozen=True)
class Picked:
    """What one rule picks.

    Attributes:
        rule: a value of ``watch``.
        epoch: from 1.
        target_miou: percent, there.
        regret: what that is below the best epoch's, in points of mIoU.
        correlation: of its order of epochs with that of the target's mIoU, -1 to 1; None where one of the two does not
            change, or epochs are too few.
    """

    rule: str
    epoch: int
    target_miou: float
    regret: float
    correlation: float | None


@dataclass(frozen=True)
class Choice:
    """All rules on one history.

    Attributes:
        epochs: how many.
        best_epoch: the first with the greatest mIoU of the target.
        best: that mIoU, in percent.
        chance: the mean over epochs, which one drawn at random has.
        picked: of each rule whose number every epoch has.
    """

    epochs: int
    best_epoch: int
    best: float
    chance: float
    picked: tuple[Picked, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rules = {
            each.rule: {
                "epoch": each.epoch,
                "target_miou": each.target_miou,
                "regret": each.regret,
                "rank_correlation": each.correlation,
            }
            for each in self.picked
        }
        best = {"epoch": self.best_epoch, "target_miou": self.best}
        return {"epochs": self.epochs, "best": best, "random": {"target_miou": self.chance}, "rules": rules}


def choice_of(run: Path, config: SegmentationConfig) -> Choice | None:
    """Of a run's history; None for one that learned from the target's labels, which all of its numbers are of.

    Raises:
        InputError: the history is damaged.
    """
    return None if config.adaptation.kind == "target" else choice(read_history(RunDirectory(run).metrics))


def choice(history: Sequence[Mapping[str, Any]]) -> Choice | None:
    """What every rule picks.

    Args:
        history: a record an epoch, as in ``metrics.jsonl``; epochs without the target's mIoU do not count.

    Returns:
        None where no epoch has it. A rule that an epoch lacks the number of is left out.

    >>> history = [
    ...     {"epoch": 1, "source_miou": 10.0, "target_entropy": 1.0, "target_miou": 5.0},
    ...     {"epoch": 2, "source_miou": 30.0, "target_entropy": 0.5, "target_miou": 20.0},
    ...     {"epoch": 3, "source_miou": 30.0, "target_entropy": 0.1, "target_miou": 15.0},
    ... ]
    >>> [(each.rule, each.epoch, each.regret) for each in choice(history).picked]
    [('source_miou', 2, 0.0), ('target_entropy', 3, 5.0), ('last', 3, 5.0)]
    """
    known = [record for record in history if _finite(record.get(TARGET))]
    if not known:
        return None
    truth = [float(record[TARGET]) for record in known]
    best = int(np.argmax(truth))
    signs = {rule: 1.0 if greater else -1.0 for rule, greater in GREATER_IS_BETTER.items()}
    numbers = {
        rule: [sign * float(record[rule]) for record in known]
        for rule, sign in signs.items()
        if all(_finite(record.get(rule)) for record in known)
    }
    numbers[LAST] = [float(record["epoch"]) for record in known]
    picked = []
    for rule, values in numbers.items():
        place = int(np.argmax(values))  # the first of those that are equal
        regret = truth[best] - truth[place]
        correlation = rank_correlation(values, truth)
        picked.append(Picked(rule, int(known[place]["epoch"]), truth[place], regret, correlation))
    return Choice(len(known), int(known[best]["epoch"]), truth[best], float(np.mean(truth)), tuple(picked))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, with mean ranks of what is equal; None where one of them does not change, or below three values.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(a) < _FEWEST:
        return None
    ranks = np.stack([rankdata(a), rankdata(b)])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    spread = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / spread if spread > 0 else None


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
