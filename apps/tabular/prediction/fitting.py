"""From tables to a fitted ensemble: encode, train the members one after the other, calibrate.

Every member is one ``core.training.fit`` with a seed of its own, in a folder of its own, so that a run that was killed
continues where it stood: finished members are read back, the one in work resumes in mid-epoch, the rest follow.

The rows are put in an order of their own first, so that the model does not depend on how a file happened to be sorted;
and a row of weight 3 is three rows, as a weight of 0 is none, wherever weights are whole numbers and not too large.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.data.encode import Encoded, TableEncoder
from apps.tabular.prediction.data.split import holdout, row_hashes
from apps.tabular.prediction.data.table import Schema, Table
from apps.tabular.prediction.model import ExcelFormer
from apps.tabular.prediction.predictor import TabularPredictor, new_model
from apps.tabular.prediction.task import RowDataset, TabularTask, monitor
from core.errors import InputError
from core.training import FitResult, FitSettings, FixedSize, Loader, Progress, fit, preserved
from core.training.group import current
from core.training.progress import ProgressName

MEMBER_SEEDS = 1_000_003
"""Distance between the seeds of two members: a prime, so that the members of runs with near seeds differ."""
_EVALUATION_ROWS = 4096
_MOST_REPEATS = 10
"""Times as many rows, at most, that whole-number weights may be written out to; larger ones multiply losses instead."""


@dataclass(frozen=True)
class Fitted:
    """What training gives: the model, and how each member came to be."""

    predictor: TabularPredictor
    results: tuple[FitResult, ...]
    """One a member."""
    rows: dict[str, int]
    """Rows learned from, and rows that stopped and calibrated."""
    seconds: float
    """Wall seconds of this call."""


@dataclass(frozen=True)
class Prepared:
    """Encoded tables, ready for every member."""

    encoder: TableEncoder
    train: RowDataset
    valid: RowDataset
    standard: tuple[float, float]
    """Mean and standard deviation of the training target, which became 0 and 1."""
    held: Encoded
    """The rows of ``valid``, to calibrate on."""
    held_target: NDArray[np.float64]


@preserved()  # from the first weights on, so that fits in several threads follow one another
def fit_predictor(
    config: TabularConfig,
    train: Table,
    valid: Table | None = None,
    *,
    weight: NDArray[np.float64] | None = None,
    directory: Path | None = None,
    progress: ProgressName | Progress = "off",
) -> Fitted:
    """Train an ensemble on ``train``, stopping and calibrating on ``valid``.

    Args:
        config: every setting; ``fit.max_minutes`` is shared out among the members, and a member for which no time is
            left is not trained (the first always is).
        train: rows to learn from.
        valid: rows to stop and calibrate on; ``config.validation_fraction`` of ``train`` is set aside where absent.
        weight: (rows of train,) sample weights, at least 0.
        directory: where to keep checkpoints, one folder a member; nothing is written where absent.
        progress: as for :func:`core.training.fit`.

    Raises:
        InputError: the rows cannot be learned from (too few, one class), or the folder holds another run.
        Interrupted: stopped by a signal, after saving.
    """
    start = time.monotonic()
    prepared = prepare(config, train, valid, weight=weight)
    members: list[ExcelFormer] = []
    results: list[FitResult] = []
    for index in range(config.members):
        minutes = _share_of_time(config, time.monotonic() - start, index)
        if minutes is not None and minutes <= 0 and members:
            break
        folder = None if directory is None else directory / f"member-{index}"
        model, result = _fit_member(config, train.schema, prepared, index, minutes, folder, progress)
        members.append(model)
        results.append(result)
    location, scale = prepared.standard
    predictor = TabularPredictor(train.schema, config, prepared.encoder, members, location=location, scale=scale)
    predictor.calibrate(prepared.held, prepared.held_target)
    rows = {"train": len(prepared.train), "valid": len(prepared.valid)}
    return Fitted(predictor, tuple(results), rows, time.monotonic() - start)


def prepare(
    config: TabularConfig, train: Table, valid: Table | None = None, *, weight: NDArray[np.float64] | None = None
) -> Prepared:
    """Rows in their order, set aside where none are given, and encoded; arguments as in :func:`fit_predictor`."""
    train, weight = _canonical(train, weight)
    if valid is None:
        train, valid, weight = _set_aside(config, train, weight)
    location, scale = _standard(train)
    encoder = TableEncoder(config.encoding, train.schema, seed=config.seed)
    encoded, held = encoder.fit_transform(train.frame, train.target), encoder.transform(valid.frame)
    return Prepared(
        encoder,
        _rows(encoded, (train.target - location) / scale, weight),
        _rows(held, (valid.target - location) / scale, None),
        (location, scale),
        held,
        valid.target,
    )


def _fit_member(
    config: TabularConfig,
    schema: Schema,
    prepared: Prepared,
    index: int,
    minutes: float | None,
    directory: Path | None,
    progress: ProgressName | Progress,
) -> tuple[ExcelFormer, FitResult]:
    seed = config.seed + MEMBER_SEEDS * index
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(config, schema, prepared.encoder)
    size = config.rows_per_batch(len(prepared.encoder.feature_names), len(prepared.train))
    # A last batch of a few rows would count as much as a full one.
    loader = Loader(prepared.train, FixedSize(size, drop_last=True), seed=seed, shuffle=True)
    settings = _settings(config, schema, seed, minutes)
    result = fit(
        TabularTask(model, schema.task, config.mixing),
        train=loader,
        valid=Loader(prepared.valid, _EVALUATION_ROWS, shuffle=False),
        optimizer=config.optim.build(model, rules=[("head.output.weight", "head")]),
        schedule=config.schedule.build(settings.max_epochs * len(loader)),
        settings=settings,
        directory=directory,
        progress=progress,
    )
    return model, result


def _settings(config: TabularConfig, schema: Schema, seed: int, minutes: float | None) -> FitSettings:
    watched, greater = monitor(schema.task, config.watch)
    mode: Literal["min", "max"] = "max" if greater else "min"
    # A time of 0 is refused by the settings; the first member gets one step.
    minutes = None if minutes is None else max(minutes, 1e-6)
    return dataclasses.replace(config.fit, seed=seed, monitor=watched, mode=mode, max_minutes=minutes)


def _share_of_time(config: TabularConfig, seconds: float, index: int) -> float | None:
    """Minutes for the member ``index``: an equal share of what is left, by the clock of the first process."""
    if config.fit.max_minutes is None:
        return None
    (minutes,) = current().first([(config.fit.max_minutes - seconds / 60) / (config.members - index)])
    return minutes


def _set_aside(
    config: TabularConfig, train: Table, weight: NDArray[np.float64] | None
) -> tuple[Table, Table, NDArray[np.float64] | None]:
    learn, stop = holdout(train, config.validation_fraction, seed=config.seed)
    return train.take(learn), train.take(stop), None if weight is None else weight[learn]


def _canonical(table: Table, weight: NDArray[np.float64] | None) -> tuple[Table, NDArray[np.float64] | None]:
    """The rows in the order of a hash of their content, repeated by their weight where that can be."""
    if weight is not None:
        if not weight.sum() > 0:
            raise InputError("all weights are 0", where="sample_weight")
        kept = np.flatnonzero(weight)
        if (weight == weight.round()).all() and weight.sum() <= _MOST_REPEATS * len(table):
            kept, weight = np.repeat(np.arange(len(table)), weight.astype(np.int64)), None
        else:
            weight = weight[kept]
        table = table.take(kept)
    keys = [table.target, row_hashes(table)]
    order = np.lexsort(keys if weight is None else [weight, *keys])
    return table.take(order), None if weight is None else weight[order]


def _standard(train: Table) -> tuple[float, float]:
    """Mean and standard deviation that make a regression target 0 and 1; 0 and 1 for classes."""
    if train.schema.task != "regression":
        return 0.0, 1.0
    scale = float(train.target.std())
    return float(train.target.mean()), scale if scale > 0 else 1.0


def _rows(encoded: Encoded, target: NDArray[np.float64], weight: NDArray[np.float64] | None) -> RowDataset:
    return RowDataset(
        torch.from_numpy(encoded.x),
        torch.from_numpy(encoded.codes),
        torch.from_numpy(target.astype(np.float32)),
        # Only their proportions count, and those of any float64 fit into a float32 below 1.
        None if weight is None else torch.from_numpy((weight / weight.max()).astype(np.float32)),
    )
