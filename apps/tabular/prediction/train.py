"""``manyformer tabular train``: from a table to a saved model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.data.sources import DEFAULT_DATA, load_splits
from apps.tabular.prediction.data.split import row_hashes
from apps.tabular.prediction.data.table import Table
from apps.tabular.prediction.fitting import Fitted, fit_predictor
from apps.tabular.prediction.presets import PRESETS
from apps.tabular.prediction.task import monitor
from core.command import (
    Parsed,
    RunDirectory,
    TrainArguments,
    claim_data,
    data_facts,
    discarded_if_refused,
    is_complete,
    only_writer,
    parse_config,
    run,
    say,
    write_outcome,
)
from core.errors import InputError

TASK = "tabular"


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainArguments):
    """Train an ensemble of ExcelFormers on a table and save it. The same command again resumes a run that was cut."""

    data: str = DEFAULT_DATA
    """Folder with train, valid and test files, one CSV or Parquet file, or bundled:NAME (tables of scikit-learn)."""
    target: str | None = None
    """Column to predict; needed where neither meta.json nor a bundled table says it."""
    task: Literal["binary", "multiclass", "regression"] | None = None
    """What the target is; inferred from its values unless given."""
    group: str | None = None
    """Column whose equal values stay in one split (a patient, a customer); it is no feature."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    parsed = parse_config(TabularConfig, PRESETS, argv, arguments=Arguments, prog="manyformer tabular train")
    arguments, config = parsed.arguments, parsed.config
    splits = load_splits(
        arguments.data,
        target=arguments.target,
        task=arguments.task,
        group=arguments.group,
        seed=config.seed,
        max_features=config.encoding.max_features,
    )
    with only_writer(arguments.out):
        directory = RunDirectory.create(arguments.out, config, task=TASK)
        with discarded_if_refused(directory):
            _claim(directory, arguments, splits)
        if is_complete(directory):
            say(f"{arguments.out}: this run is finished; choose another folder to train again")
            return
        fitted = _fit(parsed, splits, directory)
        fitted.predictor.save(directory.best)
        _write_outcome(directory, fitted)
    say(_summary(fitted, arguments.out))


def _fit(parsed: Parsed[TabularConfig, Arguments], splits: Mapping[str, Table], directory: RunDirectory) -> Fitted:
    config, minutes = parsed.config, parsed.arguments.max_minutes
    if minutes is not None:
        # A limit of this call, not a setting of the run: a resumed run may have more.
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, max_minutes=minutes))
    with discarded_if_refused(directory):
        fitted = fit_predictor(
            config,
            splits["train"],
            splits.get("valid"),
            directory=directory.last,
            progress=parsed.arguments.progress,
        )
    fitted.predictor.config = parsed.config
    return fitted


def _claim(directory: RunDirectory, arguments: Arguments, splits: Mapping[str, Table]) -> None:
    """Write what the run learns from, or refuse to resume it on other rows."""
    facts = {
        "data": arguments.data,
        "target": splits["train"].schema.target,
        "task": splits["train"].schema.task,
        "group": arguments.group,
        "rows": {name: len(table) for name, table in splits.items()},
        "digest": {name: digest(table) for name, table in splits.items()},
    }
    claim_data(directory, facts)


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


def _write_outcome(directory: RunDirectory, fitted: Fitted) -> None:
    """The history of all members, and a summary of each."""
    history = [
        {"member": member, **record} for member, result in enumerate(fitted.results) for record in result.history
    ]
    members = [
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
    wanted = fitted.predictor.config.members
    complete = len(members) == wanted and all(member["stopped_by"] != "minutes" for member in members)
    write_outcome(directory, {"rows": fitted.rows, "members": members}, history, complete=complete)


def _summary(fitted: Fitted, out: Path) -> str:
    """Two lines a person reads after training."""
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
    return (
        f"trained {networks} on {rows}, in {fitted.seconds:.0f} s; validation {watched}: {best}\n"
        f"the model is in {out / 'checkpoints' / 'best'}; next: "
        f"manyformer tabular evaluate {out} --report {out / 'report'}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
