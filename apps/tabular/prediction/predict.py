"""``manyformer tabular predict``: a saved model on new rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from apps.tabular.prediction.data.files import pandas, read_table
from apps.tabular.prediction.data.table import extra_columns
from apps.tabular.prediction.predictor import TabularPredictor, load_run
from core.artefact import replace_file
from core.command import parse_arguments, run, say, to_json
from core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Predict the rows of CSV or Parquet files with a trained model: class and probabilities, or value and interval."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    input: tyro.conf.Positional[tuple[Path, ...]]
    """Files with the columns of the training table, in any order; the target is not needed."""
    out: Path | None = None
    """Where to write the predictions: a .csv or .parquet file. Standard output unless given."""
    coverage: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.9
    """Regression: share of rows whose truth the interval should hold."""
    json: bool = False
    """Write JSON to standard output: one object a row."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer tabular predict")
    if not arguments.input:
        raise InputError("no input file", mend="manyformer tabular predict RUN FILE")
    if arguments.out is not None and arguments.out.suffix not in (".csv", ".parquet"):
        raise InputError("ends neither in .csv nor in .parquet", where=str(arguments.out))
    if not 0 < arguments.coverage < 1:
        raise InputError(f"{arguments.coverage} is not a share between 0 and 1", where="--coverage")
    predictor = load_run(arguments.run)
    parts = [_predict_file(predictor, path, arguments.coverage) for path in arguments.input]
    _write(pandas().concat(parts, ignore_index=True), arguments)


def _predict_file(predictor: TabularPredictor, path: Path, coverage: float) -> pd.DataFrame:
    frame = read_table(path)
    try:
        predictions = predictions_of(predictor, frame, coverage)
    except InputError as error:
        raise InputError(
            error.what, where=f"{path}, {error.where}" if error.where else str(path), mend=error.mend
        ) from error
    predictions.insert(0, "file", path.name)
    predictions.insert(1, "row", range(1, len(frame) + 1))
    ignored = extra_columns(frame, predictor.schema)
    if ignored:
        listed = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
        columns = (
            "1 column that the model does not know is" if len(ignored) == 1 else f"{len(ignored)} unknown columns are"
        )
        sys.stderr.write(f"{path}: {columns} ignored: {listed}\n")
    return predictions


def predictions_of(predictor: TabularPredictor, frame: pd.DataFrame, coverage: float) -> pd.DataFrame:
    """One row a row: ``prediction`` with a ``probability_<class>`` each, or with ``low`` and ``high``."""
    columns: dict[str, Any]
    if predictor.schema.task == "regression":
        if predictor.calibration.residuals is None:
            columns = {"prediction": predictor.predict(frame)}
        else:
            value, low, high = predictor.predict_interval(frame, coverage)
            columns = {"prediction": value, "low": low, "high": high}
    else:
        probabilities = predictor.predict_proba(frame)
        labels = [predictor.schema.classes[index] for index in probabilities.argmax(1)]
        columns = {"prediction": labels}
        for index, label in enumerate(predictor.schema.classes):
            columns[f"probability_{label}"] = probabilities[:, index]
    return pandas().DataFrame(columns)  # type: ignore[no-any-return]


def _write(predictions: pd.DataFrame, arguments: Arguments) -> None:
    if arguments.json:
        say(to_json(predictions.to_dict("records")))
    if arguments.out is not None:
        if arguments.out.suffix == ".parquet":
            replace_file(arguments.out, predictions.to_parquet(index=False))
        else:
            replace_file(arguments.out, predictions.to_csv(index=False))
        if not arguments.json:
            say(f"{len(predictions):,} predictions written to {arguments.out}")
    elif not arguments.json:
        say(predictions.to_csv(index=False).rstrip("\n"))


if __name__ == "__main__":
    raise SystemExit(main())
