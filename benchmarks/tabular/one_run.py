"""One run in this process: fit, predict, measure, store. Started by :mod:`benchmarks.tabular.quality`, never by hand.

Reads a request as JSON on standard input, so that nothing but this run's own memory and threads is measured.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common.measure import median_seconds, peak_memory_mib, timed
from benchmarks.common.record import provenance
from benchmarks.tabular.method import Fitted, Job
from benchmarks.tabular.methods import METHODS
from benchmarks.tabular.runs import RunKey, save
from benchmarks.tabular.scores import METRICS
from benchmarks.tabular.sets import describe, read_rows

#: Rows of a throughput measurement; the test rows are repeated up to that many.
THOUSAND = 1000
#: Single rows whose prediction time is measured; the median is reported.
SINGLE_ROWS = 30


def main() -> int:
    """Run the request on standard input."""
    request = json.load(sys.stdin)
    run(RunKey(**request["key"]), Path(request["data"]), Path(request["folder"]))
    return 0


def run(key: RunKey, data: Path, folder: Path) -> None:
    """Fit on train with valid for early stopping, predict test once, measure, store."""
    method, table = METHODS[key.method], describe(data, key.set)
    train, valid, test = (read_rows(data, table, split) for split in ("train", "valid", "test"))
    job = Job(table=table, train=train, valid=valid, seed=key.seed, threads=key.threads, minutes=key.minutes)
    imported = timed(lambda: [importlib.import_module(module) for module in method.modules])
    before = peak_memory_mib()
    fitted = timed(lambda: method.fit(job, key.settings))
    predicted = timed(lambda: fitted.result.predict(test.X))
    peak = peak_memory_mib()
    record = {
        "status": "finished",
        "import_seconds": imported.wall,
        "fit": {"wall_seconds": fitted.wall, "cpu_seconds": fitted.cpu, **fitted.result.details},
        "predict": {
            "wall_seconds": predicted.wall,
            "cpu_seconds": predicted.cpu,
            "rows": len(test.y),
            **speed(fitted.result, test.X),
        },
        "memory": {"peak_mib": peak, "before_fit_mib": before},
        "valid": valid_scores(job, fitted.result),
        "provenance": provenance(threads=key.threads, packages=method.packages),
    }
    save(folder, key, record, checked(predicted.result, table.classes, len(test.y)))


def checked(prediction: NDArray[Any], classes: tuple[str, ...], rows: int) -> NDArray[Any]:
    """The prediction, once its shape is the one the scores expect and every number is finite."""
    expected = (rows, len(classes)) if len(classes) > 2 else (rows,)
    if prediction.shape != expected:
        raise RuntimeError(f"predictions have shape {prediction.shape}, expected {expected}")
    if not np.isfinite(prediction).all():
        raise RuntimeError("predictions are not finite")
    return prediction


def valid_scores(job: Job, fitted: Fitted) -> dict[str, float]:
    """Every metric on the validation rows: what choices between methods are made by."""
    prediction = fitted.predict(job.valid.X)
    return {metric.name: metric(job.valid.y, prediction) for metric in METRICS[job.table.task]}


def speed(fitted: Fitted, rows: pd.DataFrame) -> dict[str, Any]:
    """Median wall seconds for a thousand rows at once, after a first call that is not counted, and for single rows."""
    thousand = rows.iloc[np.arange(THOUSAND) % len(rows)].reset_index(drop=True)
    return {
        "thousand_rows_seconds": median_seconds(lambda: fitted.predict(thousand), repeats=5, at_most=10.0),
        **single_rows(fitted, rows),
    }


def single_rows(fitted: Fitted, rows: pd.DataFrame) -> dict[str, Any]:
    """Median seconds of a lone row over several, and how many of them the method could not predict at all."""
    seconds, failures = list[float](), list[str]()
    for index in range(SINGLE_ROWS + 1):
        row = rows.iloc[[index % len(rows)]]
        try:
            seconds.append(timed(partial(fitted.predict, row)).wall)
        except Exception as error:  # a method that cannot predict a lone row is a finding, not the end of the run
            failures.append(f"{type(error).__name__}: {error}")
    return {
        "one_row_seconds": statistics.median(seconds[1:]) if len(seconds) > 1 else None,
        "one_row_failures": len(failures),
        "one_row_failure": failures[0] if failures else None,
    }


if __name__ == "__main__":
    sys.exit(main())
