"""Does encoding a category by target statistics leak training labels? Measured where nothing can be learned.

    python -m benchmarks.tabular.leak --out results/tabular/leak.json

Labels are coin flips and the only column is a category of 1,000 levels in 5,000 rows, so an honest encoded column ranks
training rows no better than chance: AUC 0.5. A row whose own label entered its level's statistic is ranked better, and
a model learns to trust a column that says nothing. Fresh rows of the same kind are the control: 0.5 for every encoding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from apps.tabular.prediction.data.encode import EncodingConfig, TableEncoder
from apps.tabular.prediction.data.table import Column, Schema
from benchmarks.common.record import provenance, source_digest, write_json
from benchmarks.common.table import markdown, write_text
from core.evaluation.bootstrap import bootstrap

Profile = Literal["default", "official"]

SCHEMA = Schema((Column("code", "categorical"),), "label", "binary", ("no", "yes"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both encodings and write the JSON and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular.leak", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/tabular/leak.json"))
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--levels", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=30)
    options = parser.parse_args(argv)
    payload = {
        "what": "AUC of the encoded column on random labels; 0.5 is no leak",
        "rows": options.rows,
        "levels": options.levels,
        "seeds": options.seeds,
        "sources": source_digest("apps/tabular/prediction/data"),
        "provenance": provenance(threads=1, packages=("scikit-learn",)),
        "auc": {profile: measure(profile, options) for profile in get_args(Profile)},
    }
    write_json(options.out, payload)
    write_text(options.out.with_suffix(".md"), table(payload))
    print(table(payload), end="")
    return 0


def measure(profile: Profile, options: argparse.Namespace) -> dict[str, Any]:
    """Mean AUC over seeds with its interval, on training rows and on fresh ones."""
    pairs = np.array([one_seed(profile, options.rows, options.levels, seed) for seed in range(options.seeds)])
    estimates = {name: bootstrap(np.mean, pairs[:, index]) for index, name in enumerate(("train", "fresh"))}
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def one_seed(profile: Profile, rows: int, levels: int, seed: int) -> tuple[float, float]:
    """AUC on the training rows and on fresh rows, for one draw of everything."""
    rng = np.random.default_rng(seed)
    (train, y), (fresh, fresh_y) = (draw(rng, rows, levels) for _ in range(2))
    encoder = TableEncoder(EncodingConfig(profile=profile), SCHEMA, seed=seed)
    encoded = encoder.fit_transform(train, y)
    columns = encoded.x[:, 0], encoder.transform(fresh).x[:, 0]
    return float(roc_auc_score(y, columns[0])), float(roc_auc_score(fresh_y, columns[1]))


def draw(rng: np.random.Generator, rows: int, levels: int) -> tuple[pd.DataFrame, np.ndarray[Any, np.dtype[np.int64]]]:
    """Rows whose label has nothing to do with their category."""
    code = rng.integers(levels, size=rows)
    return pd.DataFrame({"code": [f"level {index}" for index in code]}), rng.integers(2, size=rows)


def table(payload: dict[str, Any]) -> str:
    """Both encodings as Markdown."""
    rows = [
        (profile, *(f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]" for e in estimates.values()))
        for profile, estimates in payload["auc"].items()
    ]
    note = f"Mean over {payload['seeds']} seeds with 95 % interval; {payload['rows']} rows, {payload['levels']} levels."
    return markdown(("encoding", "AUC training rows", "AUC fresh rows"), rows) + f"\n{note}\n"


if __name__ == "__main__":
    sys.exit(main())
