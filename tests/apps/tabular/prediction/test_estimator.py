"""The estimators: scikit-learn's own checks, and what users of that library rely on."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from apps.tabular.prediction import ExcelFormerClassifier, ExcelFormerRegressor
from core.errors import InputError

QUICK = {"preset": "tiny", "overrides": {"model.width": 8, "model.layers": 1, "optim.lr": 0.02, "batch_size": 32}}


@parametrize_with_checks(
    [ExcelFormerClassifier(**QUICK, random_state=0), ExcelFormerRegressor(**QUICK, random_state=0)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def mixed() -> tuple[pd.DataFrame, np.ndarray]:
    """A table whose label depends on a category, a number and their interaction; a third of the numbers missing."""
    rng = np.random.default_rng(0)
    n = 600
    city = rng.choice(["Oslo", "Rome", "Lima"], n)
    age = rng.normal(50, 10, n)
    logit = np.where(city == "Oslo", 1, -1) * (age - 50) / 5
    age[rng.random(n) < 0.1] = np.nan
    frame = pd.DataFrame({"age": age, "city": city, "noise": rng.normal(size=n)})
    labels = np.where(rng.random(n) < 1 / (1 + np.exp(-logit)), "sick", "well")
    return frame, labels


@pytest.fixture(scope="module")
def fitted(mixed):
    frame, labels = mixed
    # In all cities as many are sick: statistics of the target say nothing, only the embedding can tell them apart.
    settings = {"model.category_embedding": True, "batch_size": 32, "fit.patience": 20, "model.init_scale": 1.0}
    model = ExcelFormerClassifier(preset="tiny", max_epochs=40, overrides=settings, random_state=0)
    return model.fit(frame[:400], labels[:400])


def test_learns_an_interaction_of_a_number_and_a_category_with_missing_values(mixed, fitted):
    frame, labels = mixed
    truth = labels[400:] == fitted.classes_[1]
    assert roc_auc_score(truth, fitted.predict_proba(frame[400:])[:, 1]) > 0.75
    # the marginals alone carry nothing: a model of one column each stays near chance
    assert roc_auc_score(truth, frame["age"][400:].fillna(50)) < 0.65


def test_a_row_has_the_same_answer_alone_and_in_any_order(mixed, fitted):
    frame, _ = mixed
    together = fitted.predict_proba(frame)
    order = np.random.default_rng(1).permutation(len(frame))
    np.testing.assert_allclose(fitted.predict_proba(frame.iloc[order]), together[order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.predict_proba(frame.iloc[[7]]), together[[7]], rtol=0, atol=1e-12)


def test_unseen_categories_missing_cells_and_numbers_as_text_are_answered(fitted):
    rows = pd.DataFrame({"age": ["41", None, "50"], "city": ["Atlantis", None, "Oslo"], "noise": [0.0, 1.0, np.nan]})
    probabilities = fitted.predict_proba(rows)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="city"), "missing"),
        (lambda frame: frame[["city", "age", "noise"]], "order"),
        (lambda frame: frame.assign(age="old"), "not a number"),
        (lambda frame: frame.assign(age=np.inf), "infinite"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_in_words(mixed, fitted, change, words):
    with pytest.raises(ValueError, match=words):
        fitted.predict(change(mixed[0].head(3)))


def test_saved_and_loaded_models_answer_alike_and_need_no_pickle(mixed, fitted, tmp_path: Path):
    fitted.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = ExcelFormerClassifier.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(mixed[0]), fitted.predict_proba(mixed[0]))
    np.testing.assert_array_equal(loaded.predict(mixed[0]), fitted.predict(mixed[0]))
    with pytest.raises(InputError, match="ExcelFormerClassifier"):
        ExcelFormerRegressor.load(tmp_path)


def test_pickles_and_clones(mixed, fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(mixed[0].head()), fitted.predict_proba(mixed[0].head()))
    assert not hasattr(clone(fitted), "predictor_")


def test_the_order_of_rows_and_columns_does_not_matter_to_a_fit():
    X, y = load_iris(return_X_y=True, as_frame=True)
    one = ExcelFormerClassifier(**QUICK, random_state=3).fit(X, y)
    shuffled = X[X.columns[::-1]].sample(frac=1, random_state=0)
    other = ExcelFormerClassifier(**QUICK, random_state=3).fit(shuffled, y[shuffled.index])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X[X.columns[::-1]]), rtol=0, atol=1e-10)


def test_intervals_cover_what_they_promise_on_rows_not_seen():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3))
    y = X[:, 0] * 2 + rng.normal(size=900) * (0.3 + (X[:, 1] > 0))
    model = ExcelFormerRegressor(preset="tiny", members=2, random_state=0).fit(X[:400], y[:400])
    low, high = model.predict_interval(X[400:], coverage=0.8).T
    share = np.mean((low <= y[400:]) & (y[400:] <= high))
    # 60 calibration rows: the coverage given them has a standard deviation of 0.05
    assert 0.65 < share < 0.95
    wider_low, wider_high = model.predict_interval(X[400:], coverage=0.95).T
    assert (wider_low <= low).all()
    assert (wider_high >= high).all()


def test_sample_weights_move_the_fit():
    X, y = load_iris(return_X_y=True)
    weight = np.where(y == 2, 0.001, 1.0)
    plain = ExcelFormerClassifier(**QUICK, random_state=0).fit(X, y)
    weighted = ExcelFormerClassifier(**QUICK, random_state=0).fit(X, y, sample_weight=weight)
    assert weighted.predict_proba(X)[:, 2].mean() < plain.predict_proba(X)[:, 2].mean()


def test_works_inside_cross_validation_and_leaves_the_callers_generators_alone():
    X, y = load_diabetes(return_X_y=True)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.random.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    scores = cross_val_score(ExcelFormerRegressor(preset="tiny", random_state=0), X, y, cv=2)
    assert (scores > 0.2).all()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "tinny"}, "did you mean 'tiny'"),
        ({"overrides": {"model.widht": 8}}, "did you mean 'width'"),
        ({"overrides": {"model.width": 10, "model.heads": 4}}, "heads"),
        ({"overrides": {"model.norm": "lalernorm"}}, "layernorm"),
        ({"members": 0}, "members"),
        ({"categorical_features": ["colour"]}, "colour"),
    ],
)
def test_wrong_settings_are_refused_before_training(mixed, arguments, words):
    frame, labels = mixed
    with pytest.raises(InputError, match=words):
        ExcelFormerClassifier(**{"preset": "tiny", **arguments}).fit(frame, labels)


def test_one_class_and_unknown_labels_in_the_eval_set_are_refused(mixed):
    frame, labels = mixed
    with pytest.raises(InputError, match="one class only"):
        ExcelFormerClassifier(preset="tiny").fit(frame, np.full(len(frame), "well"))
    with pytest.raises(InputError, match="'odd' does not occur"):
        ExcelFormerClassifier(preset="tiny").fit(frame, labels, eval_set=(frame.head(2), ["odd", "well"]))
