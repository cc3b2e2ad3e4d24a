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
from core.artefact import replace_file
from core.command import Parsed, RunDirectory, only_writer, parse_config, read_facts, run, say, to_json
from core.errors import InputError

TASK = "tabular"
DATA, OUTCOME = "data.json", "outcome.json"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train an ensemble of ExcelFormers on a table and save it. The same command again resumes a run that was cut."""

    out: Path
    """Folder of the run."""
    data: str = DEFAULT_DATA
    """Folder with train, valid and test files, one CSV or Parquet file, or bundled:NAME (tables of scikit-learn)."""
    target: str | None = None
    """Column to predict; needed where neither meta.json nor a bundled table says it."""
    task: Literal["binary", "multiclass", "regression"] | None = None
    """What the target is; inferred from its values unless given."""
    group: str | None = None
    """Column whose equal values stay in one split (a patient, a customer); it is no feature."""
    max_minutes: float | None = None
    """Wall minutes of this call; what was learned until then is the model."""
    progress: Literal["auto", "bar", "plain", "off"] = "auto"
    """How progress is shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    parsed = parse_config(TabularConfig, PRESETS, argv, arguments=Arguments, prog="manyformer tabular train")
    arguments, config = parsed.arguments, parsed.config
    if arguments.max_minutes is not None and not arguments.max_minutes > 0:
        raise InputError(f"{arguments.max_minutes:g} minutes leave no time", where="--max-minutes")
    splits = load_splits(
        arguments.data, target=arguments.target, task=arguments.task, group=arguments.group, seed=config.seed
    )
    with only_writer(arguments.out):
        directory = RunDirectory.create(arguments.out, config, task=TASK)
        _claim(directory, arguments, splits)
        if _is_complete(directory):
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
    try:
        fitted = fit_predictor(
            config,
            splits["train"],
            splits.get("valid"),
            directory=directory.last,
            progress=parsed.arguments.progress,
        )
    except InputError:
        if not directory.last.exists():
            # Refused before the first step: a folder that nothing came of must not tie the next try to this config.
            (directory.path / DATA).unlink(missing_ok=True)
            directory.discard()
        raise
    fitted.predictor.config = parsed.config
    return fitted


def _claim(directory: RunDirectory, arguments: Arguments, splits: Mapping[str, Table]) -> None:
    """Write what the run learns from, or refuse to resume it on other rows."""
    facts: dict[str, Any] = {
        "data": arguments.data,
        "target": splits["train"].schema.target,
        "task": splits["train"].schema.task,
        "group": arguments.group,
        "rows": {name: len(table) for name, table in splits.items()},
        "digest": {name: digest(table) for name, table in splits.items()},
    }
    path = directory.path / DATA
    if not path.is_file():
        replace_file(path, to_json(facts) + "\n")
        return
    known = read_data_facts(directory)["digest"]
    changed = [name for name, digest in facts["digest"].items() if known.get(name) != digest]
    if changed:
        what = f"this run was begun on other rows (its {changed[0]} split differs)"
        raise InputError(what, where=str(directory.path), mend="give the same --data, or another --out")


def read_data_facts(directory: RunDirectory) -> dict[str, Any]:
    """What :data:`DATA` of a run says: the source, its group column, and a digest of each split.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = directory.path / DATA
    facts = read_facts(path)
    data, group, digests = facts.get("data"), facts.get("group"), facts.get("digest")
    if not isinstance(data, str) or not isinstance(group, str | None) or not isinstance(digests, dict):
        raise InputError("does not say what the run was trained on", where=str(path), mend="the file is damaged")
    return facts


def digest(table: Table) -> str:
    """A fingerprint of rows, target and schema: equal for equal tables."""
    fingerprint = hashlib.sha256(json.dumps(table.schema.to_dict(), default=str).encode())
    fingerprint.update(row_hashes(table).tobytes())
    fingerprint.update(table.target.tobytes())
    return fingerprint.hexdigest()[:16]


def _is_complete(directory: RunDirectory) -> bool:
    """Whether nothing is left to train: a run that ended for want of minutes goes on when it is called again."""
    path = directory.path / OUTCOME
    if not path.is_file():
        return False
    return read_facts(path).get("complete") is True


def _write_outcome(directory: RunDirectory, fitted: Fitted) -> None:
    """The history of all members, and a summary, which comes last: with it the run is over."""
    lines = [
        json.dumps({"member": member, **record})
        for member, result in enumerate(fitted.results)
        for record in result.history
    ]
    replace_file(directory.metrics, "\n".join(lines) + "\n")
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
    replace_file(
        directory.path / OUTCOME, to_json({"complete": complete, "rows": fitted.rows, "members": members}) + "\n"
    )


def _summary(fitted: Fitted, out: Path) -> str:
    """Two lines a person reads after training."""
    config, schema = fitted.predictor.config, fitted.predictor.schema
    watched, _ = monitor(schema.task, config.watch)
    if watched == "rmse":
        watched = "rmse (of the standardised target)"
    best = ", ".join(
        "not measured, no epoch was finished"
        if result.best is None
        else f"{result.best:.4g} in epoch {result.best_epoch}"
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
