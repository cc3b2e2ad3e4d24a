"""What studies need of the application: parts of the training rows."""

from __future__ import annotations

import numpy as np
import pytest

from apps.tabular.prediction.application import APPLICATION, Source
from apps.tabular.prediction.data.split import row_hashes
from apps.tabular.prediction.presets import tiny


def rows_of(table):
    return set(row_hashes(table).tolist())


@pytest.fixture(scope="module")
def data():
    return APPLICATION.load(Source(data="bundled:breast_cancer"), tiny())


def test_smaller_parts_lie_within_larger_ones_and_keep_the_classes(data):
    whole = data["train"]
    parts = [APPLICATION.part(data, share)["train"] for share in (0.1, 0.3, 0.8)]
    for share, part in zip((0.1, 0.3, 0.8), parts, strict=True):
        assert len(part) == pytest.approx(share * len(whole), abs=2)
        assert np.mean(part.target) == pytest.approx(np.mean(whole.target), abs=0.02)
    small, middle, large = map(rows_of, parts)
    assert small < middle < large < rows_of(whole)


def test_only_the_training_split_is_another_one(data):
    part = APPLICATION.part(data, 0.5)
    assert part["test"] is data["test"]
    assert part["valid"] is data["valid"]
    before, after = (APPLICATION.facts(Source(), each)["digest"] for each in (data, part))
    assert [name for name in before if before[name] != after[name]] == ["train"]
    again = APPLICATION.facts(Source(), APPLICATION.part(data, 0.5))["digest"]
    assert again == after


def test_groups_stay_whole(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["a,b,who,y", *(f"{rng.normal()},{rng.normal()},p{i % 40},{i % 2}" for i in range(400))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    data = APPLICATION.load(Source(data=str(tmp_path / "t.csv"), target="y", group="who"), tiny())
    part, whole = APPLICATION.part(data, 0.5)["train"], data["train"]
    for group in set(part.groups):
        assert sum(part.groups == group) == sum(whole.groups == group)
    assert 0 < len(part) < len(whole)
