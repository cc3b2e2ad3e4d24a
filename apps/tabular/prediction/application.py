"""Table prediction as an application: what training, comparing and searching need of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.data.sources import DEFAULT_DATA, load_splits
from apps.tabular.prediction.data.split import holdout, row_hashes
from apps.tabular.prediction.data.table import Table
from apps.tabular.prediction.fitting import Fitted, fit_predictor, prepare
from apps.tabular.prediction.model import ExcelFormer
from apps.tabular.prediction.predictor import TASK, TabularPredictor, load_run, new_model
from apps.tabular.prediction.presets import PRESETS
from apps.tabular.prediction.scores import METRICS, PRIMARY, positive
from apps.tabular.prediction.task import monitor
from core.application import Application, Measure, Scored, Trained
from core.command import RunDirectory, data_facts
from core.errors import InputError, nearest
from core.evaluation.metrics import Metric
from core.rewrite import Rewrite
from core.training import Progress
from core.training.progress import ProgressName

Splits: TypeAlias = dict[str, Table]
PROBE_ROWS = 256
"""Rows that a network is tried on."""
NOMINAL_FEATURES = 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """The arguments that say which table."""

    data: str = DEFAULT_DATA
    """Folder with train, valid and test files, one CSV or Parquet file, or bundled:NAME (tables of scikit-learn)."""
    target: str | None = None
    """Column to predict; needed where neither meta.json nor a bundled table says it."""
    task: Literal["binary", "multiclass", "regression"] | None = None
    """What the target is; inferred from its values unless given."""
    group: str | None = None
    """Column whose equal values stay in one split (a patient, a customer); it is no feature."""


class TablePrediction(Application[TabularConfig, Splits, TabularPredictor]):
    """ExcelFormer on a table."""

    name = TASK
    model_name = "excelformer"
    config = TabularConfig
    presets = PRESETS
    source = Source

    def load(self, source: Source, config: TabularConfig) -> Splits:
        """The tables by split."""
        return load_splits(
            source.data,
            target=source.target,
            task=source.task,
            group=source.group,
            max_features=config.encoding.max_features,
        )

    def facts(self, source: Source, data: Splits) -> dict[str, Any]:
        """Source, target, groups, and a digest of each split."""
        return {
            "data": source.data,
            "target": data["train"].schema.target,
            "task": data["train"].schema.task,
            "group": source.group,
            "rows": {name: len(table) for name, table in data.items()},
            "digest": {name: digest(table) for name, table in data.items()},
        }

    def part(self, data: Splits, share: float) -> Splits:
        """Whole groups, or sets of equal rows, and every class in proportion."""
        kept, _ = holdout(data["train"], 1.0 - share)
        return {**data, "train": data["train"].take(kept)}

    def build(self, config: TabularConfig, data: Splits) -> nn.Module:
        """One member, for the features that the encoder makes of the training rows."""
        prepared = prepare(config, data["train"], data.get("valid"))
        return new_model(config, data["train"].schema, prepared.encoder)

    def prototype(self, config: TabularConfig) -> nn.Module:
        """One member, for features of falling importance."""
        importance = [float(rank) for rank in range(NOMINAL_FEATURES, 0, -1)]
        cardinalities = [0] * NOMINAL_FEATURES
        return ExcelFormer(NOMINAL_FEATURES, 1, config.model, importance=importance, cardinalities=cardinalities)

    def fit(
        self,
        config: TabularConfig,
        data: Splits,
        *,
        directory: Path | None = None,
        progress: ProgressName | Progress = "off",
    ) -> Trained[TabularPredictor]:
        """The members, one after the other, and their calibration."""
        fitted = fit_predictor(config, data["train"], data.get("valid"), directory=directory, progress=progress)
        return Trained(
            model=fitted.predictor,
            results=fitted.results,
            complete=len(fitted.results) == config.members
            and all(result.stopped_by != "minutes" for result in fitted.results),
            facts={"rows": fitted.rows, "members": _members(fitted)},
            history=[
                {"member": member, **record}
                for member, result in enumerate(fitted.results)
                for record in result.history
            ],
            summary=_summary(fitted),
        )

    def open(self, run: RunDirectory) -> TabularPredictor:
        """The ensemble of a finished run."""
        return load_run(run.path)

    def rewritten(
        self, model: TabularPredictor, networks: Sequence[nn.Module], rewrites: Sequence[Sequence[Rewrite]]
    ) -> TabularPredictor:
        """The ensemble of other members; its calibration stays."""
        return TabularPredictor(
            model.schema,
            model.config,
            model.encoder,
            [cast(ExcelFormer, network) for network in networks],
            location=model.location,
            scale=model.scale,
            calibration=model.calibration,
            rewrites=rewrites,
        )

    def probe(self, model: TabularPredictor, data: Splits, split: str) -> Callable[[nn.Module], Tensor]:
        """Logits, or standardised values, of the first rows."""
        encoded = model.encoder.transform(data[split].frame.head(PROBE_ROWS))
        x, codes = torch.from_numpy(encoded.x), torch.from_numpy(encoded.codes)

        def run(network: nn.Module) -> Tensor:
            outputs: Tensor = network(x.to(next(network.parameters()).dtype), codes)
            return outputs

        return run

    def metrics(self, data: Splits) -> Mapping[str, Metric]:
        """Those of the task, its primary one first."""
        kind = data["train"].schema.task
        return {name: METRICS[kind][name] for name in sorted(METRICS[kind], key=lambda name: name != PRIMARY[kind])}

    def score(self, model: TabularPredictor, data: Splits, split: str) -> Scored:
        """Every metric of the task; rows are the units, or groups where there are any."""
        if split not in data:
            raise InputError(f"there is no split {split!r}", where="--split", mend=nearest(split, [*data]))
        table, kind = data[split], model.schema.task
        scores = model.predict(table.frame) if kind == "regression" else model.predict_proba(table.frame)
        if kind == "binary":
            scores = positive(scores)
        measures = {name: Measure(metric, table.target, scores) for name, metric in self.metrics(data).items()}
        strata = None if kind == "regression" or table.groups is not None else table.target
        return Scored(measures, table.groups, strata)

    def networks(self, config: TabularConfig) -> int:
        """The members of the ensemble."""
        return config.members

    def alone(self, config: TabularConfig) -> TabularConfig:
        """One member."""
        return replace(config, members=1)

    def monitored(self, config: TabularConfig, data: Splits) -> str:
        """AUC, accuracy, RMSE or the loss."""
        return monitor(data["train"].schema.task, config.watch)[0]

    def greater_is_better(self, config: TabularConfig, data: Splits) -> bool:
        """By what is watched: AUC and accuracy rise, losses fall."""
        return monitor(data["train"].schema.task, config.watch)[1]


APPLICATION = TablePrediction()


def read_data_facts(directory: RunDirectory) -> dict[str, Any]:
    """What the run was trained on: the source, its group column, and a digest of each split.

    Raises:
        InputError: the file is missing or damaged.
    """
    facts = data_facts(directory)
    if not isinstance(facts.get("group"), str | None):
        what = "does not say what the run was trained on"
        raise InputError(what, where=str(directory.data), mend="the file is damaged")
    return facts


def digest(table: Table) -> str:
    """A fingerprint of rows, target and schema: equal for equal tables."""
    fingerprint = hashlib.sha256(json.dumps(table.schema.to_dict(), default=str).encode())
    fingerprint.update(row_hashes(table).tobytes())
    fingerprint.update(table.target.tobytes())
    return fingerprint.hexdigest()[:16]


def _members(fitted: Fitted) -> list[dict[str, Any]]:
    """What each member came to."""
    return [
        {
            "best": result.best,
            "best_epoch": result.best_epoch,
            "steps": result.steps,
            "seconds": result.seconds,
            "seconds_to_best": result.seconds_to_best,
            "stopped_by": result.stopped_by,
        }
        for result in fitted.results
    ]


def _summary(fitted: Fitted) -> Sequence[str]:
    """What a person reads after training."""
    config, schema = fitted.predictor.config, fitted.predictor.schema
    watched, _ = monitor(schema.task, config.watch)
    if watched == "rmse":
        watched = "rmse (of the standardised target)"
    best = ", ".join(
        "not a number in any epoch" if result.best is None else f"{result.best:.4g} in epoch {result.best_epoch}"
        for result in fitted.results
    )
    count = len(fitted.results)
    networks = "1 network" if count == 1 else f"{count} networks"
    rows = f"{fitted.rows['train']:,} rows, stopped on {fitted.rows['valid']:,}"
    return [f"trained {networks} on {rows}, in {fitted.seconds:.0f} s; validation {watched}: {best}"]
