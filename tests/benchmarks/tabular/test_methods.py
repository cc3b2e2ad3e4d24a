import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.tabular.boosted import CategoryColumns, fit_hgb
from benchmarks.tabular.linear import fit_linear
from benchmarks.tabular.method import Job
from benchmarks.tabular.methods import BOOSTED, FRAME_RECIPE, METHODS, TREES
from benchmarks.tabular.scores import error, primary
from benchmarks.tabular.sets import describe, read_rows

SETTINGS = {"linear": {"iterations": 200}, "hgb": {**TREES, "rounds": 60}}


def job(data, name):
    table = describe(data, name)
    train, valid = (read_rows(data, table, split) for split in ("train", "valid"))
    return Job(table=table, train=train, valid=valid, seed=0, threads=1, minutes=1.0)


def test_an_unseen_level_and_a_missing_one_are_missing(data):
    encode = CategoryColumns(job(data, "binary_set"))
    rows = read_rows(data, describe(data, "binary_set"), "test").X.head(3).copy()
    rows["colour"] = ["red", "mauve", np.nan]
    column = encode(rows)["c2"]
    assert list(column.cat.categories) == ["NA", "None", "red"]
    assert column.isna().tolist() == [False, True, True]


def test_too_many_levels_become_numbers(data):
    encode = CategoryColumns(job(data, "binary_set"), most_levels=2)
    rows = read_rows(data, describe(data, "binary_set"), "test").X.head(3).copy()
    rows["colour"] = ["red", "NA", "mauve"]
    np.testing.assert_array_equal(encode(rows)["c2"], [2.0, 0.0, np.nan])


@pytest.mark.parametrize("name", ["binary_set", "multiclass_set", "regression_set"])
@pytest.mark.parametrize("fit", [fit_linear, fit_hgb], ids=["linear", "hgb"])
def test_adapters_predict_in_the_layout_of_the_scores(data, name, fit):
    work = job(data, name)
    fitted = fit(work, SETTINGS[fit.__name__.removeprefix("fit_")])
    test = read_rows(data, work.table, "test")
    metric = primary(work.table.task)
    prediction = fitted.predict(test.X)
    blind = np.full_like(prediction, work.train.y.mean() if name == "regression_set" else 1 / 3)
    assert error(metric, metric(test.y, prediction)) < 0.6 * error(metric, metric(test.y, blind))
    np.testing.assert_allclose(fitted.predict(test.X.iloc[[5]])[0], prediction[5])


def test_boosting_keeps_the_best_number_of_rounds(data):
    work = job(data, "regression_set")
    fitted = fit_hgb(work, {"rounds": 90, "patience": 90})
    encode = CategoryColumns(work)
    model = HistGradientBoostingRegressor(max_iter=90, early_stopping=False, random_state=0)
    model.fit(encode(work.train.X), work.train.y)
    stages = list(model.staged_predict(encode(work.valid.X)))
    best = int(np.argmin([np.mean((stage - work.valid.y) ** 2) for stage in stages]))
    assert fitted.details["rounds"] == best + 1 < 90
    np.testing.assert_allclose(fitted.predict(work.valid.X), stages[best])


def test_the_table_names_methods_by_their_keys():
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    assert set(BOOSTED) < set(METHODS)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("name", ["multiclass_set", "regression_set"])
def test_the_peer_learns_and_its_classes_are_put_back_in_order(data, name):
    pytest.importorskip("torch_frame")
    from benchmarks.tabular.frame_peer import train

    work = job(data, name)
    model = train(work, {**FRAME_RECIPE, "channels": 16, "layers": 1, "batch": 64, "epochs": 20, "learning_rate": 0.01})
    metric, test = primary(work.table.task), read_rows(data, work.table, "test")
    if name == "multiclass_set":
        assert model.encode.classes != sorted(model.encode.classes)
        assert metric(test.y, model.predict(test.X)) > 0.85
    else:
        assert metric(test.y, model.predict(test.X)) < 0.5 * test.y.std()
    assert len(model.history) == 20
    best = min if name == "regression_set" else max
    assert metric(work.valid.y, model.predict(work.valid.X)) == pytest.approx(best(e.score for e in model.history))
