"""A folder of sets as the benchmark reads it, drawn at random: one of each task."""

import json

import numpy as np
import pandas as pd
import pytest


def _frame(rng, rows):
    return pd.DataFrame(
        {
            "size": rng.normal(size=rows).round(3),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(1, 90, rows)),
            "colour": rng.choice(["None", "NA", "red", ""], rows),
        }
    )


def _target(task, frame, rng):
    signal = frame["size"] + (frame["colour"] == "red") + 0.1 * rng.normal(size=len(frame))
    if task == "regression":
        return 100 + 25 * signal
    if task == "binary":
        return np.where(signal > 0.5, "yes", "no")
    return np.select([signal > 1.0, signal > 0.8], ["big", "mid"], "tiny")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    classes = {"binary": ["no", "yes"], "multiclass": ["big", "mid", "tiny"], "regression": None}
    index = []
    for task, labels in classes.items():
        folder = root / f"{task}_set"
        folder.mkdir()
        for split, rows in (("train", 240), ("valid", 60), ("test", 80)):
            frame = _frame(rng, rows)
            frame["target"] = _target(task, frame, rng)
            frame.to_csv(folder / f"{split}.csv.gz", index=False)
        meta = {"task": task, "target": "target", "numeric": ["size", "age"], "categorical": ["colour"]}
        (folder / "meta.json").write_text(json.dumps(meta | {"classes": labels}))
        index.append({"name": folder.name, "rows": 500})
    pd.DataFrame(index).to_csv(root / "index.csv", index=False)
    return root
