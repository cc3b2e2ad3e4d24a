from __future__ import annotations

import json

import pytest

from benchmarks import comparisons
from core.errors import InputError


def study(missing=0):
    """The two files of a small study: the arm ``b`` is better by 0.1, and diverged once."""
    effect = {"value": 0.1, "low": 0.05, "high": 0.15}
    error = {"a": 0.25, "b": 0.5, "value": -0.25, "low": -0.5, "high": 0.125}
    cost = {"mean": 2.0, "ratio": 1.5, "low": 1.2, "high": 1.8}
    ended = {"finished": 2, "diverged": 1, "failed": 0, "missing": 0}
    arms = [
        {
            "name": name,
            "levels": {"auc": {"value": 0.8, "low": 0.7, "high": 0.9}},
            "costs": {"seconds": cost, "parameters": cost},
            "endings": ended if name == "norm=b" else {**ended, "diverged": 0, "finished": 3},
        }
        for name in ("norm=a", "norm=b")
    ]
    found = {
        "name": "norm=b",
        "effects": {"auc": effect, "error": error, "of a class that is absent": {"value": None}},
        "low": 0.04,
        "high": 0.16,
        "smallest": 0.07,
        "p_adjusted": 0.012,
        "verdict": "better",
        "sentence": "norm=b is better.",
    }
    analysis = {
        "primary": "auc",
        "greater_is_better": {"auc": True, "error": False, "of a class that is absent": True},
        "units": 1200,
        "grouped": False,
        "seeds": [0, 1, 2],
        "arms": arms,
        "comparisons": [found],
    }
    results = {"task": "tabular", "missing": missing, "epochs": {"norm=a": 30, "norm=b": 30}, "analysis": analysis}
    plan = {
        "environment": {"command": ["cli.py", "compare", "--data", "/home/me/tables/wine"], "commit": "abc"},
        "source": {"data": "/home/me/tables/wine"},
        "digests": {"test": "d"},
        "threads": 1,
        "seeds": [0, 1, 2],
        "minutes_per_run": None,
    }
    return results, plan


def test_a_study_becomes_a_results_file_that_names_no_folder_of_this_machine(tmp_path):
    for name, facts in zip(("results.json", "study.json"), study(), strict=True):
        (tmp_path / name).write_text(json.dumps(facts))
    out = tmp_path / "out" / "wine.json"
    assert comparisons.main([str(tmp_path), "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["provenance"]["command"] == "manyformer compare --data wine"
    assert written["provenance"]["runs"] == {"commits": ["abc"], "threads": [1], "seeds": [0, 1, 2], "minutes": []}
    assert "/home" not in out.read_text()
    table = out.with_suffix(".md").read_text()
    assert (
        "| norm=b | +0.1 [+0.05, +0.15] | [+0.04, +0.16] | 0.012 | better | 0.07 | x 1.50 | x 1.50 | 1 diverged |"
        in table
    )
    assert "`tabular` on wine, 1,200 test units, 3 seeds, 30 epochs. Baseline `norm=a`: auc ↑ 0.8 [0.7, 0.9]." in table
    assert "| norm=b | error ↓ | 0.5 | 0.25 | -0.25 [-0.5, +0.125] |" in table
    assert "absent" not in table
    assert "- norm=b is better." in table
    assert comparisons.headline(written) == "wine: auc 0.8 with norm=a; norm=b +0.1 [+0.05, +0.15]"


def test_a_study_with_missing_runs_is_no_result(tmp_path, capsys):
    with pytest.raises(InputError, match="4 runs are missing"):
        comparisons.gathered(*study(missing=4))
    assert comparisons.main([str(tmp_path), "--out", str(tmp_path / "x.json")]) == 2
    assert "results.json" in capsys.readouterr().err
