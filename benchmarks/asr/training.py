"""Any network trained as ours is, for so many wall minutes, and the texts that it then writes.

The schedule must come to its end within the minutes, or the slower network would be judged in the middle of its run.
So the number of epochs is what the minutes allow, estimated from a short run of a copy that is thrown away and one
evaluation of it (neither counts); the minutes are then a limit that ends the run if the estimate was too good.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from apps.asr.config import AsrConfig
from apps.asr.data.audio import AudioStore
from apps.asr.data.dataset import SpeechBatches
from apps.asr.data.manifest import Utterance
from apps.asr.decoding import greedy
from apps.asr.features import LogMel
from apps.asr.fitting import Prepared
from apps.asr.task import SpeechTask
from apps.asr.tokenizer import Tokenizer
from benchmarks.common.measure import timed
from core.optim.routing import Rules
from core.training import ByLength, FitResult, FitSettings, Loader, fit

#: Wall minutes of the short run, in shares of the budget and at most.
PROBE_SHARE, PROBE_MINUTES = 0.05, 0.5
WARM_UP_MINUTES = 0.02
#: Epochs that no short run comes to the end of.
MANY = 10**6
#: Of the minutes, what the estimated epochs may fill.
FILLED = 0.95


@dataclass(frozen=True)
class Trained:
    """A task with its best weights, and how it came to them."""

    task: SpeechTask
    result: FitResult
    epochs: int
    seconds_per_epoch: float


def train(model: nn.Module, prepared: Prepared, config: AsrConfig, *, minutes: float, rules: Rules = ()) -> Trained:
    """Train ``model`` on a prepared corpus; ``rules`` place parameters for the optimiser."""
    batches, valid = (_loader(config, prepared, name) for name in ("train", "valid"))
    task = SpeechTask(model, prepared.tokenizer)
    seconds = seconds_per_epoch(task, batches, valid, config, minutes=minutes, rules=rules)
    epochs = epochs_within(minutes, seconds)
    result = _fit(task, batches, valid, config, rules, epochs=epochs, minutes=minutes)
    return Trained(task, result, epochs, seconds)


def epochs_within(minutes: float, seconds_per_epoch: float) -> int:
    """Epochs that fit into the minutes; at least one.

    >>> epochs_within(10, 30.0), epochs_within(1, 500.0)
    (19, 1)
    """
    return max(1, int(FILLED * 60 * minutes / seconds_per_epoch))


def seconds_per_epoch(
    task: SpeechTask, batches: Loader, valid: Loader, config: AsrConfig, *, minutes: float, rules: Rules
) -> float:
    """Seconds of an epoch and its evaluation, from a short run of a copy of the network."""
    trial = SpeechTask(copy.deepcopy(task.model), task.tokenizer)
    limit = min(PROBE_MINUTES, PROBE_SHARE * minutes)
    for minutes_of_run in (WARM_UP_MINUTES, limit):  # the first call imports and compiles: its time says nothing
        result = _fit(trial, batches, None, config, rules, epochs=MANY, minutes=minutes_of_run)
    with torch.inference_mode():
        evaluation = timed(lambda: trial.evaluate(valid))
    return result.seconds / result.steps * len(batches) + evaluation.wall


def _fit(
    task: SpeechTask,
    batches: Loader,
    valid: Loader | None,
    config: AsrConfig,
    rules: Rules,
    *,
    epochs: int,
    minutes: float,
) -> FitResult:
    wanted: dict[str, Any] = {"max_epochs": epochs, "max_minutes": minutes, "patience": None, "seed": config.seed}
    settings: FitSettings = dataclasses.replace(config.fit, monitor=config.watch, mode="min", **wanted)
    return fit(
        task,
        train=batches,
        valid=valid,
        optimizer=config.optim.build(task.model, rules),
        schedule=config.schedule.build(epochs * len(batches)),
        settings=settings,
        progress="off",
    )


def _loader(config: AsrConfig, prepared: Prepared, name: str) -> Loader:
    split = getattr(prepared, name)
    augment = config.augment if name == "train" else None
    source = SpeechBatches(split.utterances, split.targets, prepared.store, LogMel(config.features), augment)
    batching = ByLength(source.seconds, config.batch_seconds)
    return Loader(source, batching, seed=config.seed, shuffle=name == "train")


@torch.inference_mode()
def transcribe(
    model: nn.Module, tokenizer: Tokenizer, utterances: Sequence[Utterance], store: AudioStore, config: AsrConfig
) -> list[str]:
    """Greedy texts in the order of ``utterances``."""
    source = SpeechBatches(utterances, [()] * len(utterances), store, LogMel(config.features))
    texts = [""] * len(utterances)
    model.eval()
    for batch in Loader(source, ByLength(source.seconds, config.batch_seconds), shuffle=False):
        logits, lengths = model(batch["features"], batch["lengths"])
        for index, found in zip(batch["index"].tolist(), greedy(logits, lengths, tokenizer.blank), strict=True):
            texts[index] = tokenizer.decode(list(found.tokens))
    return texts
