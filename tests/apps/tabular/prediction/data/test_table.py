from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.tabular.prediction.data.infer import encode_target, infer_kind, infer_schema, infer_task
from apps.tabular.prediction.data.table import Column, Schema, Table, arrays, canonical, conform, extra_columns, numbers
from core import artefact
from core.errors import InputError

SCHEMA = Schema((Column("age", "numeric"), Column("city", "categorical")), "sick", "binary", ("no", "yes"))


def test_conform_reorders_ignores_and_converts() -> None:
    frame = pd.DataFrame({"x": [0, 1], "city": pd.Categorical([1.0, None]), "age": ["41", None], "sick": ["no", "yes"]})
    out = conform(frame, SCHEMA)
    assert list(out.columns) == ["age", "city"]
    assert out["age"].dtype == np.float64
    assert out["age"].iloc[0] == 41.0
    assert np.isnan(out["age"].iloc[1])
    assert out["city"].tolist() == ["1", None]
    assert extra_columns(frame, SCHEMA) == ("x",)
    pd.testing.assert_frame_equal(conform(out, SCHEMA), out)


def test_conform_names_all_missing_columns_at_once() -> None:
    with pytest.raises(InputError, match=r"new\.csv: columns are missing: 'age', 'city'"):
        conform(pd.DataFrame({"x": [1]}), SCHEMA, where="new.csv")


@pytest.mark.parametrize(
    ("age", "what"),
    [
        (["1", "2", "about 3"], "row 3 holds 'about 3', not a number"),
        ([1.0, np.inf, 2.0], "row 2 is infinite"),
        (["1", "-inf", "2"], "row 2 is infinite"),
        ([1, 10**400, 2], "row 2 is infinite"),
        ([1, [2], 3], "row 2 holds"),
    ],
)
def test_conform_names_column_row_and_value(age: list[Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        conform(pd.DataFrame({"age": pd.Series(age, dtype=object), "city": "a"}), SCHEMA)
    assert "column 'age'" in str(caught.value)
    assert what in str(caught.value)


def test_conform_refuses_repeated_columns_and_values_that_are_no_category() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["age", "city", "age"])
    with pytest.raises(InputError, match="occur twice: 'age'"):
        conform(frame, SCHEMA)
    with pytest.raises(InputError, match="row 2 holds"):
        conform(pd.DataFrame({"age": [1, 2], "city": ["a", ["b"]]}), SCHEMA)


def test_a_category_has_one_name_in_every_type() -> None:
    values = [1, 1.0, np.float32(1), np.int8(1), "1", " 1.0 ", decimal.Decimal("1.0"), True, "True", "", None, np.nan]
    assert canonical(pd.Series(values, dtype=object)).tolist() == ["1"] * 7 + ["True"] * 2 + [None] * 3
    assert canonical(pd.Series(["01", "1.50", "-2.00", "1.0.0"])).tolist() == ["01", "1.50", "-2", "1.0.0"]
    assert canonical(pd.Series([datetime.date(2020, 1, 2)])).tolist() == ["2020-01-02"]


def test_numbers_of_every_type() -> None:
    values, stray = numbers(pd.Series([1, "2", " 3e1 ", True, None, "", "1_0", "0x1", 1j, 2**60 + 1], dtype=object))
    np.testing.assert_array_equal(values, [1, 2, 30, 1, np.nan, np.nan, np.nan, np.nan, np.nan, 2.0**60])
    assert stray.tolist() == [False] * 6 + [True] * 3 + [False]
    assert numbers(pd.Series([decimal.Decimal("sNaN"), None, "x"], dtype=object))[1].tolist() == [False, False, True]
    for dtype in ("Int64", "boolean", "float32[pyarrow]"):
        np.testing.assert_array_equal(numbers(pd.Series([1, None], dtype=dtype))[0], [1, np.nan])


def test_text_numbers_are_read_exactly() -> None:
    values = np.random.default_rng(0).standard_normal(500) * 10.0 ** np.random.default_rng(1).integers(-300, 300, 500)
    np.testing.assert_array_equal(numbers(pd.Series([repr(float(v)) for v in values]))[0], values)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_frame_conforms_or_gives_an_input_error(data: st.DataObject) -> None:
    decimals = st.sampled_from([decimal.Decimal(t) for t in ("1.50", "NaN", "sNaN", "1e400", "-Infinity")])
    cell = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=2),
        st.dates(), decimals, st.complex_numbers(), st.lists(st.integers(), max_size=2),
    )  # fmt: skip
    names = data.draw(st.lists(st.sampled_from(["age", "city", "z"]), max_size=4))
    rows = data.draw(st.integers(0, 12))
    cells = [[data.draw(cell) for _ in names] for _ in range(rows)]
    frame = pd.DataFrame(np.array([*cells, [0] * len(names)], dtype=object)[:-1], columns=names) if names else None
    frame = pd.DataFrame(index=range(rows)) if frame is None else frame
    try:
        out = conform(frame, SCHEMA)
    except InputError:
        return
    assert out.shape == (rows, 2)
    assert not np.isinf(out["age"]).any()
    assert all(isinstance(value, str) or value is None for value in out["city"])
    # A row means the same alone as among others.
    for row in range(rows):
        one = arrays(frame.iloc[[row]], SCHEMA)
        np.testing.assert_array_equal(one["age"], out["age"].iloc[[row]])
        assert one["city"][0] == out["city"].iloc[row]


def test_schema_round_trip_and_refusals(tmp_path: Path) -> None:
    artefact.save(tmp_path, SCHEMA.to_dict(), kind="schema", version=1)
    assert Schema.from_dict(artefact.load(tmp_path, kind="schema", version=1)) == SCHEMA
    columns = SCHEMA.columns
    for wrong in (
        lambda: Schema((), "y", "regression"),
        lambda: Schema((*columns, columns[0]), "y", "regression"),
        lambda: Schema(columns, "age", "regression"),
        lambda: Schema(columns, "y", "regression", ("a", "b")),
        lambda: Schema(columns, "y", "binary", ("a",)),
        lambda: Schema.from_dict({"columns": 3}),
        lambda: Column("a", "ordinal"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            wrong()


def test_table_takes_rows_and_refuses_lengths_that_differ() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0], "city": ["a", "b", "c"]})
    table = Table(frame, np.array([0, 1, 0]), SCHEMA, np.array(["g", "h", "i"], dtype=object)).take([2, 0])
    assert table.frame["city"].tolist() == ["c", "a"]
    assert table.target.tolist() == [0, 0]
    assert table.groups is not None
    assert table.groups.tolist() == ["i", "g"]
    with pytest.raises(InputError, match="differ in length"):
        Table(frame, np.array([0]), SCHEMA)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], "numeric"),
        ([1, 1], "numeric"),
        ([None, None], "numeric"),
        (["1", "n.a."], "categorical"),
        ([True, None], "categorical"),
        (pd.Categorical([1, 2]), "categorical"),
        ([datetime.datetime(2020, 1, 1)] * 2, "categorical"),
    ],
)
def test_kinds(values: Any, kind: str) -> None:
    assert infer_kind(pd.Series(values)) == kind


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 5, "binary"),
        (["a", "b", "c"], "multiclass"),
        ([True, False], "binary"),
        (["3", "7"] * 5, "binary"),
        ([0, 1, 2] * 10, "multiclass"),
        ([0, 1, 2] * 9 + [3], "regression"),  # 4 values in 28 rows: fewer than ten rows each
        (list(range(21)) * 20, "regression"),
        ([0.5, 1.0, 2.0] * 20, "regression"),
    ],
)
def test_tasks(values: list[Any], task: str) -> None:
    assert infer_task(pd.Series(values)) == task


def test_classes_are_ordered_as_numbers_and_can_be_given() -> None:
    frame = pd.DataFrame({"x": range(40), "y": ["10", "9"] * 20})
    schema = infer_schema(frame, "y")
    assert schema.classes == ("9", "10")
    assert encode_target(frame["y"], schema).tolist() == [1, 0] * 20
    assert infer_schema(frame, "y", classes=[10, 9]).classes == ("10", "9")
    assert infer_schema(frame, "y", task="regression").classes == ()


@pytest.mark.parametrize(
    ("target", "task", "what"),
    [
        (["a"] * 6, None, "one class only"),
        ([None] * 6, "binary", "no labels"),
        (list("abcdef"), None, "6 classes in 6 rows"),
        (list("abcabc"), "binary", "3 classes for a binary task"),
    ],
)
def test_targets_that_cannot_be_learned(target: list[Any], task: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        infer_schema(pd.DataFrame({"x": range(6), "y": target}), "y", task=task)


def test_encode_target_counts_missing_and_names_strangers() -> None:
    with pytest.raises(InputError, match=r"2 rows have no target \(the first: row 2\)"):
        encode_target(pd.Series(["no", None, None]), SCHEMA)
    with pytest.raises(InputError, match="row 2 has the unknown label 'maybe'; known: no, yes"):
        encode_target(pd.Series(["no", "maybe"]), SCHEMA)
    regression = Schema(SCHEMA.columns, "y", "regression")
    with pytest.raises(InputError, match="row 1 holds 'much'"):
        encode_target(pd.Series(["much", 1]), regression)
    with pytest.raises(InputError, match="not a finite number"):
        encode_target(pd.Series([1.0, np.inf]), regression)
