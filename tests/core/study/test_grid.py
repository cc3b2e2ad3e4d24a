"""What varies is read by the rules of a config, and whatever would make an arm something else is refused."""

from __future__ import annotations

import itertools

import pytest

from core.errors import InputError
from core.study.grid import Varied, changed, check_varied, fixed_fields, key_of, make_arms, parse_varied


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("model.width=3,4", (3, 4)),
        ("optim.lr=1e-3, 3e-4,1", (1e-3, 3e-4, 1.0)),
        ("optim.betas=[0.9,0.999],[0.8,0.99]", ([0.9, 0.999], [0.8, 0.99])),
        ("model.kernel=none,7", (None, 7)),
        ("model.kernel=null,7", (None, 7)),
        ("model.act=none,tanh", ("none", "tanh")),
        ("fit.clip-norm=None,1", (None, 1.0)),
    ],
)
def test_values_have_the_type_of_the_field(toy, text, values):
    found = parse_varied(text, toy.Config()).values
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model.widht=3,4", "--vary: 'model.widht' is not a field; did you mean 'model.width'?"),
        ("width=3,4", "--vary: 'width' is not a field; did you mean 'model.width'?"),
        ("model=3", "--vary: model: is a group of fields; vary one of them: model.width, …"),
        ("model.width", "--vary: 'model.width' does not say which values; write FIELD=VALUE,VALUE"),
        ("model.width=", "--vary: model.width: no value is named; write FIELD=VALUE,VALUE"),
        ("model.width=3,x", "--vary: model.width: expected a whole number, got 'x'"),
        ("model.width=3,3.5", "--vary: model.width: expected a whole number, got 3.5"),
        ("model.width=none", "--vary: model.width: expected a whole number, got 'none'"),
        ("model.act=tahn,relu", "--vary: model.act: 'tahn' is not one of the choices; did you mean 'tanh'?"),
        ("optim.lr=1,1.0", "--vary: optim.lr: the value 1.0 is named twice"),
        ("fit.ema=0.9,2", "ema: 2.0 is out of range"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(toy, text, line):
    with pytest.raises(InputError) as caught:
        parse_varied(text, toy.Config())
    assert str(caught.value) == line


def test_a_text_that_is_no_list(toy):
    with pytest.raises(InputError, match="is no list of values"):
        parse_varied("optim.betas=[0.9,0.999", toy.Config())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([], "nothing varies"),
        (["model.width", "model.width"], "varies twice"),
        (["optim.lr"], "is also set by --optim.lr"),
        (["seed"], "the seeds are no settings; say how many with --seeds"),
        (["fit.seed"], "the seeds are no settings"),
        (["fit.max_epochs"], "is decided by --minutes-per-run"),
        (["fit.patience"], "is decided by --minutes-per-run"),
        (["fit.max_minutes"], "must not depend on the clock"),
    ],
)
def test_what_the_study_decides_cannot_vary(fields, words):
    varied = [Varied(field=field, values=(1, 2)) for field in fields]
    with pytest.raises(InputError, match=words):
        check_varied(varied, ["optim.lr", "fit.clip_norm"], budgeted=True)


def test_one_value_is_nothing_to_compare():
    with pytest.raises(InputError, match="one value only"):
        check_varied([Varied(field="a", values=(1,)), Varied(field="b", values=(2,))], [], budgeted=False)
    check_varied([Varied(field="a", values=(1,)), Varied(field="fit.patience", values=(2, 3))], [], budgeted=False)


def test_fields_that_a_line_sets(toy):
    line = "--model.width 4 --fit.clip-norm=1 --seed 3 --out optim.lr --vary model.act=tanh --config x"
    assert fixed_fields(line.split(), toy.Config) == ["model.width", "fit.clip_norm", "seed"]


def test_arms():
    varied = [Varied(field="a", values=(1, 2, 3)), Varied(field="b", values=("x", "y"))]
    arms = make_arms(varied)
    assert [tuple(arm.changes.values()) for arm in arms] == list(itertools.product((1, 2, 3), "xy"))
    assert arms[0].name == "a=1, b=x"
    single = make_arms(varied, one_at_a_time=True)
    assert [arm.name for arm in single] == ["a=1, b=x", "a=2", "a=3", "b=y"]
    assert {key_of(arm) for arm in single} < {key_of(arm) for arm in arms}


def test_keys_are_names_of_files_and_tell_every_arm_from_every_other():
    values = (None, "none", 1, 1.0, "1", True, "../..", "a/b", "a b", "x" * 300, [0.9, 0.95])
    keys = [key_of(arm) for arm in make_arms([Varied(field="a.b", values=values)])]
    assert len(set(keys)) == len(values)
    for key in keys:
        assert len(key) < 100
        assert not set(key) & set("/ []\"'")
        assert not key.startswith(".")
    assert keys[0] != key_of(make_arms([Varied(field="a.c", values=(None,))])[0])


def test_changes_are_laid_over_the_config(toy):
    base = toy.Config(seed=3)
    config = changed(base, {"model.width": 7, "optim.betas": [0.5, 0.6], "model.kernel": 2})
    assert (config.model.width, config.optim.betas, config.model.kernel, config.seed) == (7, (0.5, 0.6), 2, 3)
    assert config.model.dropout == base.model.dropout
