from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import QuantileTransformer, TargetEncoder

from apps.tabular.prediction.data.category import CategoryStatistics, folds_of, statistics
from apps.tabular.prediction.data.encode import Encoded, EncodingConfig, TableEncoder
from apps.tabular.prediction.data.importance import mutual_information, order_of
from apps.tabular.prediction.data.quantile import NumericScaler, n_quantiles, standardised
from apps.tabular.prediction.data.table import Column, Schema
from core import artefact
from core.errors import InputError

DEFAULT, OFFICIAL = EncodingConfig(), EncodingConfig(profile="official")


def schema_of(task: str, n_classes: int = 0, **kinds: str) -> Schema:
    columns = tuple(Column(name, kind) for name, kind in kinds.items())  # type: ignore[arg-type]
    return Schema(columns, "y", task, tuple(range(n_classes)))  # type: ignore[arg-type]


def mixed(rows: int = 300, seed: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers (one with gaps), categories (one with gaps, one wide), and a score that depends on some of them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.standard_normal(rows), "b": rng.integers(0, 4, rows), "gap": rng.random(rows)})
    frame["c"] = rng.choice(["red", "green", "blue"], rows).astype(object)
    frame["wide"] = rng.integers(0, 60, rows).astype(str).astype(object)
    score = frame["a"] + (frame["c"] == "red") + 0.3 * frame["b"] + 0.3 * rng.standard_normal(rows)
    frame.loc[rng.random(rows) < 0.2, "gap"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "c"] = None
    return frame, score.to_numpy()


KINDS = {"a": "numeric", "b": "numeric", "gap": "numeric", "c": "categorical", "wide": "categorical"}
TARGETS: dict[str, Any] = {
    "regression": lambda score: score,
    "binary": lambda score: (score > 0.8).astype(np.int64),
    "multiclass": lambda score: np.digitize(score, [0.0, 1.0, 2.5]),
}


def encoder_of(task: str, config: EncodingConfig = DEFAULT, **changes: Any) -> tuple[TableEncoder, Encoded, Any]:
    frame, score = mixed()
    schema = schema_of(task, {"binary": 2, "multiclass": 4}.get(task, 0), **KINDS)
    encoder = TableEncoder(dataclasses.replace(config, **changes), schema, seed=5)
    return encoder, encoder.fit_transform(frame, TARGETS[task](score)), frame


# Leakage ----------------------------------------------------------------------------------------------------------


def test_training_rows_do_not_see_their_own_label() -> None:
    schema = schema_of("binary", 2, c="categorical")
    aucs = []
    for seed in range(6):  # on one data set the AUC scatters by 0.01
        rng = np.random.default_rng(1000 + seed)
        y = rng.integers(0, 2, 5000)
        frame = pd.DataFrame({"c": rng.integers(0, 1000, 5000).astype(str)})
        encoded = [TableEncoder(c, schema, seed).fit_transform(frame, y).x[:, 0] for c in (DEFAULT, OFFICIAL)]
        aucs.append([roc_auc_score(y, x) for x in encoded])
    assert np.abs(np.array(aucs)[:, 0] - 0.5).max() < 0.03
    np.testing.assert_allclose(np.mean(aucs, axis=0), [0.5, 0.755], atol=0.015)


def test_a_row_of_its_own_category_tells_nothing() -> None:
    y = np.random.default_rng(0).standard_normal(200)
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(200)]})
    encoder = TableEncoder(DEFAULT, schema_of("regression", id="categorical"))
    assert not encoder.fit_transform(frame, y).x.any()
    assert encoder.importance.tolist() == [0.0]
    assert encoder.weights.tolist() == [1.0]


def test_cross_fitted_values_by_hand() -> None:
    codes, y = np.array([2, 2, 3, 2, 3, 2]), np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])[:, None]
    folds = np.array([0, 1, 0, 1, 1, 0])
    _, rows = CategoryStatistics.fit(codes, 4, y, folds=folds, smooth=2.0)
    # Fold 1 has category 2 with labels 0, 1 and 3 with 0; fold 0 has 2 with 1, 0 and 3 with 1. The prior is 1/2.
    two_from_1, three_from_1, two_from_0, three_from_0 = (1 + 1) / 4, (0 + 1) / 3, (1 + 1) / 4, (1 + 1) / 3
    raw = np.array([two_from_1, two_from_0, three_from_1, two_from_0, three_from_0, two_from_1])
    np.testing.assert_allclose(rows[:, 0], (raw - raw.mean()) / raw.std(), atol=1e-12)


@pytest.mark.parametrize("smooth", [1.0, 10.0])
def test_statistics_of_all_rows_are_scikit_learns(smooth: float) -> None:
    rng = np.random.default_rng(0)
    codes, y = rng.integers(2, 30, 400), rng.standard_normal(400)
    ours = statistics(codes, 31, y[:, None], y[:, None].mean(axis=0), smooth)[:, 0]
    theirs = TargetEncoder(smooth=smooth, target_type="continuous").fit(codes[:, None], y)
    np.testing.assert_allclose(ours[codes], theirs.transform(codes[:, None])[:, 0], atol=1e-12)
    assert ours[0] == ours[30] == y.mean()


def test_folds_spread_every_class_and_take_rare_ones() -> None:
    y = np.repeat([0, 1, 2, 3], [100, 13, 4, 1])
    folds = folds_of(y, folds=5, stratify=True, seed=0)
    counts = np.array([np.bincount(folds[y == c], minlength=5) for c in range(4)])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert (folds_of(y, folds=5, stratify=True, seed=1) != folds).any()
    assert folds_of(np.array([0]), folds=5, stratify=True, seed=0).tolist() == [0]


# The official profile ---------------------------------------------------------------------------------------------


def test_official_statistics_by_hand() -> None:
    frame = pd.DataFrame({"n": [1.0, 2, 3, 4, 5], "c": ["u", "u", "v", "v", "v"]})
    y = np.array([2, 0, 1, 2, 2])
    encoder = TableEncoder(
        dataclasses.replace(OFFICIAL, order="given"), schema_of("multiclass", 3, n="numeric", c="categorical")
    )
    encoded = encoder.fit_transform(frame, y)
    prior = 7 / 5
    u, v = (2 + prior) / 3, (5 + prior) / 4
    assert encoder.feature_names == ("c", "n")  # categorical ones first
    np.testing.assert_allclose(encoded.x[:, 0], [u, u, v, v, v], rtol=1e-6)
    fresh = encoder.transform(pd.DataFrame({"n": [1.0, 1.0], "c": ["new", None]}))
    np.testing.assert_allclose(fresh.x[:, 0], [prior, prior], rtol=1e-6)


def test_official_refuses_missing_numbers_unless_told() -> None:
    frame, score = mixed()
    schema = schema_of("regression", **KINDS)
    row = int(np.flatnonzero(frame["gap"].isna())[0]) + 1
    with pytest.raises(InputError, match=rf"column 'gap': row {row} is missing"):
        TableEncoder(OFFICIAL, schema).fit_transform(frame, score)
    encoder = TableEncoder(dataclasses.replace(OFFICIAL, missing="impute"), schema)
    encoder.fit_transform(frame, score)
    assert sorted(encoder.feature_names) == sorted(KINDS)


def test_official_quantile_count_and_noise() -> None:
    assert [n_quantiles(n) for n in (1, 299, 300, 330, 30_000, 10**6)] == [10, 10, 10, 11, 1000, 1000]
    values = np.random.default_rng(0).random((6000, 1))
    assert NumericScaler.fit("quantile", values, ["a"], seed=0, official=True).tables.shape == (200, 1)
    # A column in a small unit drowns in the released program's noise, and does not in ours.
    spread = {
        official: NumericScaler.fit("quantile", values * 1e-6, ["a"], seed=0, official=official)
        .transform(values * 1e-6)
        .std()
        for official in (True, False)
    }
    assert spread[True] < 0.1
    assert abs(spread[False] - 1.0) < 0.05


# Numbers ----------------------------------------------------------------------------------------------------------


def test_quantiles_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.lognormal(size=(900, 1)), rng.lognormal(sigma=1.5, size=(400, 1))
    scaler = NumericScaler.fit("quantile", train, ["a"], seed=0, official=False)
    reference = QuantileTransformer(n_quantiles=30, output_distribution="normal", subsample=None).fit(train)
    reference.quantiles_ = scaler.tables
    np.testing.assert_allclose(scaler.transform(test), reference.transform(test), atol=1e-9)
    z = scaler.transform(train)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.05


@pytest.mark.parametrize("kind", ["quantile", "standard"])
def test_units_do_not_matter(kind: Any) -> None:
    values = np.random.default_rng(0).standard_normal((500, 1))
    results = [
        NumericScaler.fit(kind, values * unit, ["a"], seed=0, official=False).transform(values * unit)
        for unit in (1.0, 1e-9, 1e12, 1e290)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["quantile", "standard"])
def test_missing_is_the_middle(kind: Any) -> None:
    values = np.array([[1.0], [2.0], [np.nan], [4.0], [10.0]])
    scaler = NumericScaler.fit(kind, values, ["a"], seed=0, official=False)
    assert scaler.transform(values)[2, 0] == 0.0
    middle = np.median([1, 2, 4, 10]) if kind == "quantile" else 4.25
    assert abs(scaler.transform(np.array([[middle]]))[0, 0]) < 0.3


def test_standardised_survives_huge_values() -> None:
    np.testing.assert_allclose(standardised(np.array([1e299, 3e299, 1e299, 3e299])), [-1, 1, -1, 1])
    assert standardised(np.array([5.0, 5.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["quantile", "standard"])
@pytest.mark.parametrize("profile", ["default", "official"])
def test_wild_columns_stay_finite(kind: Any, profile: Any) -> None:
    rows = 60
    frame = pd.DataFrame(
        {
            "constant": 3.0,
            "empty": np.nan,
            "huge": np.linspace(-1.0, 1.0, rows) * 1.7e308,
            "tiny": np.linspace(0, 5e-324 * rows, rows),
            "long": 2**53 + np.arange(rows),
            "one_off": [1e300] + [0.0] * (rows - 1),
            "two": np.arange(rows) % 2,
            "void": None,
        }
    )
    schema = schema_of("regression", **{name: "categorical" if name == "void" else "numeric" for name in frame})
    encoder = TableEncoder(EncodingConfig(profile=profile, numeric=kind, missing="indicator"), schema)
    y = np.linspace(-1.0, 1.0, rows) * 1e300
    x = encoder.fit_transform(frame, y).x
    assert np.isfinite(x).all()
    later = pd.DataFrame({name: [-1e308, 1e308, 0.0, np.nan] for name in frame})
    assert np.isfinite(encoder.transform(later).x).all()
    assert not x[:, encoder.feature_names.index("empty")].any()
    assert abs(x[:, encoder.feature_names.index("long")]).max() > 1


# The whole encoder ------------------------------------------------------------------------------------------------


def test_features_codes_and_cardinalities() -> None:
    encoder, encoded, frame = encoder_of("binary")
    assert sorted(encoder.feature_names) == ["a", "b", "c", "gap", "is_missing(gap)", "wide"]
    at = {name: index for index, name in enumerate(encoder.feature_names)}
    assert encoder.cardinalities[at["c"]] == 5
    assert encoder.cardinalities[[at["a"], at["is_missing(gap)"]]].tolist() == [0, 0]
    assert not encoded.codes[:, at["a"]].any()
    levels = {"missing": 1, "blue": 2, "green": 3, "red": 4}
    assert encoded.codes[:, at["c"]].tolist() == [levels[value] for value in frame["c"].fillna("missing")]
    flag, gap = encoded.x[:, at["is_missing(gap)"]], frame["gap"].isna().to_numpy()
    assert len(np.unique(flag[gap])) == len(np.unique(flag[~gap])) == 1
    assert (encoded.x[gap, at["gap"]] == 0).all()
    np.testing.assert_allclose(encoded.x.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(encoded.x.std(axis=0), 1, atol=0.15)  # a fifth of one column is missing
    assert encoded.x.dtype == np.float32
    assert (np.diff(encoder.importance) <= 0).all()
    assert abs(encoder.weights.sum() - 1) < 1e-12
    assert encoder.feature_names[0] == "a"


def test_unseen_is_the_prior_and_missing_a_category() -> None:
    frame = pd.DataFrame({"c": ["u"] * 40 + ["v"] * 40 + [None] * 20})
    y = np.array([1] * 30 + [0] * 10 + [0] * 30 + [1] * 10 + [1] * 20)
    encoder = TableEncoder(DEFAULT, schema_of("binary", 2, c="categorical"))
    encoder.fit_transform(frame, y)
    fresh = encoder.transform(pd.DataFrame({"c": ["u", "v", None, "new"]}))
    assert fresh.codes[:, 0].tolist() == [2, 3, 1, 0]
    u, v, missing, unseen = fresh.x[:, 0]
    assert v < unseen < u < missing
    # Relative positions are those of the smoothed means: u 36/50, v 16/50, missing 26/30, unseen 0.6.
    np.testing.assert_allclose((u - unseen) / (unseen - v), (0.72 - 0.6) / (0.6 - 0.32), rtol=1e-4)
    np.testing.assert_allclose((missing - unseen) / (u - unseen), (26 / 30 - 0.6) / 0.12, rtol=1e-4)


def test_multiclass_gives_a_column_per_class_and_stays_bounded() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(25), rng.integers(0, 12, 975)])
    frame = pd.DataFrame({"c": rng.integers(0, 5, 1000).astype(str), "d": (y % 7).astype(str)})
    schema = schema_of("multiclass", 25, c="categorical", d="categorical")
    encoder = TableEncoder(DEFAULT, schema)
    encoder.fit_transform(frame, y)
    assert len(encoder.feature_names) == 2 * 10
    assert {name for name in encoder.feature_names if name.startswith("d")} == {
        f"d[{c}]" for c in np.sort(np.argsort(-np.bincount(y), kind="stable")[:10])
    }
    assert all(name.startswith("d") for name in encoder.feature_names[:10])
    assert set(encoder.cardinalities) == {7, 9}


@pytest.mark.parametrize("task", list(TARGETS))
@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_state_round_trip_is_bit_equal(tmp_path: Path, task: str, numeric: Any) -> None:
    encoder, _, frame = encoder_of(task, numeric=numeric)
    artefact.save(tmp_path, encoder.state(), kind="encoder", version=1)
    loaded = TableEncoder.from_state(artefact.load(tmp_path, kind="encoder", version=1))
    frame = pd.concat([frame, pd.DataFrame({"a": [9e9], "b": ["7"], "gap": [None], "c": ["mauve"], "wide": [3.0]})])
    before, after = encoder.transform(frame), loaded.transform(frame)
    assert before.x.tobytes() == after.x.tobytes()
    assert before.codes.tobytes() == after.codes.tobytes()
    assert loaded.feature_names == encoder.feature_names
    assert loaded.importance.tobytes() == encoder.importance.tobytes()
    assert loaded.cardinalities.tolist() == encoder.cardinalities.tolist()
    assert loaded.config == encoder.config


@pytest.mark.parametrize("order", ["importance", "random", "reversed"])
@pytest.mark.parametrize("task", list(TARGETS))
def test_the_order_of_the_input_columns_changes_nothing(task: str, order: Any) -> None:
    encoder, encoded, frame = encoder_of(task, order=order)
    names = ["wide", "gap", "c", "b", "a"]
    schema = schema_of(task, len(encoder.schema.classes), **{name: KINDS[name] for name in names})
    other = TableEncoder(encoder.config, schema, seed=5)
    again = other.fit_transform(frame[names], TARGETS[task](mixed()[1]))
    assert other.feature_names == encoder.feature_names
    assert again.x.tobytes() == encoded.x.tobytes()
    assert again.codes.tobytes() == encoded.codes.tobytes()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    encoder, _, frame = encoder_of("multiclass")
    together = encoder.transform(frame)
    for row in (0, 17, 123):
        alone = encoder.transform(frame.iloc[[row]])
        assert alone.x.tobytes() == together.x[[row]].tobytes()
        assert alone.codes.tolist() == together.codes[[row]].tolist()


def test_orders() -> None:
    names, information = ["d", "a", "c", "b"], np.array([0.2, 0.0, 0.9, 0.2])
    assert order_of(information, names, "importance", 0).tolist() == [2, 3, 0, 1]
    assert order_of(information, names, "reversed", 0).tolist() == [1, 3, 0, 2]
    assert order_of(information, names, "given", 0).tolist() == [0, 1, 2, 3]
    assert len({tuple(order_of(information, names, "random", seed)) for seed in range(20)}) > 5


def test_mutual_information_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3)).astype(np.float32)
    x[:, 2] = 1.0
    y = 0.8 * x[:, 0] + 0.6 * rng.standard_normal(4000)
    found = mutual_information(x, y, ["a", "b", "c"], classes=False, rows=3000, seed=0)
    np.testing.assert_allclose(found, [-0.5 * np.log(1 - 0.64), 0.0, 0.0], atol=0.05)
    assert found[2] == 0.0


def test_tiny_training_sets() -> None:
    for rows in (1, 2, 3, 5):
        frame = pd.DataFrame({"n": np.arange(rows) * 1.0, "c": [str(i % 2) for i in range(rows)]})
        kinds = {"n": "numeric", "c": "categorical"}
        for task, classes, y in (("binary", 2, np.arange(rows) % 2), ("regression", 0, np.arange(rows) * 1.0)):
            encoder = TableEncoder(DEFAULT, schema_of(task, classes, **kinds))
            assert np.isfinite(encoder.fit_transform(frame, y).x).all()
            assert abs(encoder.weights.sum() - 1) < 1e-12


def test_refusals() -> None:
    frame, score = mixed(20)
    schema = schema_of("binary", 2, **KINDS)
    with pytest.raises(InputError, match="not fitted"):
        TableEncoder(DEFAULT, schema).transform(frame)
    for y, what in (
        (np.zeros(3, dtype=int), "shape"),
        (np.full(20, 2), "from 0 to 1"),
        (np.full(20, 0.5), "whole numbers"),
    ):
        with pytest.raises(InputError, match=what):
            TableEncoder(DEFAULT, schema).fit_transform(frame, y)
    with pytest.raises(InputError, match="missing or infinite"):
        TableEncoder(DEFAULT, schema_of("regression", **KINDS)).fit_transform(frame, np.append(score[1:], np.nan))
    with pytest.raises(InputError, match="6 encoded features, more than 5"):
        TableEncoder(EncodingConfig(max_features=5), schema).fit_transform(frame, (score > 0).astype(int))
    for field in ("smooth", "folds", "importance_rows", "max_features", "class_columns"):
        with pytest.raises(InputError, match=f"encoding.{field}"):
            EncodingConfig(**{field: 0.0 if field == "smooth" else 0})
