import numpy as np
import pytest

from benchmarks.tabular.sets import describe, read_rows, set_names
from core.errors import InputError


def test_only_an_empty_cell_is_missing(data):
    rows = read_rows(data, describe(data, "binary_set"), "train")
    assert set(rows.X["colour"].dropna()) == {"None", "NA", "red"}
    assert rows.X["colour"].isna().any()
    assert list(rows.X.columns) == ["size", "age", "colour"]
    assert rows.X["age"].isna().any()


def test_targets_are_class_indices_in_the_order_of_meta_or_numbers(data):
    table = describe(data, "multiclass_set")
    rows = read_rows(data, table, "train")
    assert rows.y.dtype == np.int64
    # "tiny" is the last class and the most frequent one by construction
    assert np.bincount(rows.y).argmax() == table.classes.index("tiny")
    assert read_rows(data, describe(data, "regression_set"), "test").y.mean() > 50


def test_a_class_that_meta_does_not_list_is_refused(data):
    table = describe(data, "binary_set")
    with pytest.raises(InputError, match="class"):
        read_rows(data, type(table)(**{**vars(table), "classes": ("no", "maybe")}), "train")


def test_names_are_checked(data, tmp_path):
    assert set_names(data) == ["binary_set", "multiclass_set", "regression_set"]
    assert set_names(data, "regression_set,binary_set") == ["regression_set", "binary_set"]
    with pytest.raises(InputError, match="did you mean 'binary_set'"):
        set_names(data, "binary_sat")
    with pytest.raises(InputError, match="no such file"):
        set_names(tmp_path)
