from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.command import config_from_dict, config_to_dict, differences, read_config, stored_config
from core.command.yaml12 import dump, load
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InputError(f"must be positive, got {self.lr}", where="optim.lr")


@dataclass(frozen=True, kw_only=True)
class Drop:
    rate: float


@dataclass(frozen=True, kw_only=True)
class Mask:
    share: float
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 32
    name: str = "a"
    bias: bool = True
    kind: Literal["none", "feat", 3] = "none"
    path: str | None = None
    layers: tuple[int, ...] = (1, 2)
    words: list[str] = field(default_factory=list)
    sizes: Sequence[int] = ()
    rates: dict[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    optim: Optim = field(default_factory=Optim)
    second: Optim | None = None
    noise: Drop | Mask | None = None
    steps: tuple[Drop | Mask, ...] = ()


FULL = Config(
    width=7,
    name="",
    kind=3,
    path="x",
    layers=(),
    words=["no", "1e-3", "null", "2024-01-01", "true", "~", "größe"],
    sizes=(3,),
    rates={"no": 0.5, "1": 1e-300},
    options={"deep": [1, {"a": None}]},
    optim=Optim(lr=math.inf, betas=(0, 1.0)),
    second=Optim(lr=2.0),
    noise=Mask(share=0.1),
    steps=(Drop(rate=0.0), Mask(share=1.0, seed=2)),
)


@pytest.mark.parametrize("config", [Config(), FULL], ids=["default", "full"])
def test_dict_and_yaml_round_trips(config, tmp_path):
    data = config_to_dict(config)
    assert config_from_dict(Config, data) == config
    (tmp_path / "config.yaml").write_text(dump(data), encoding="utf-8")
    back = read_config(Config, tmp_path / "config.yaml")
    assert back == config
    assert differences(config_to_dict(back), data) == []


def test_an_int_becomes_the_float_it_stands_for():
    lr = config_from_dict(Optim, {"lr": 1, "betas": [0, 1]})
    assert type(lr.lr) is float
    assert [type(beta) for beta in lr.betas] == [float, float]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"widht": 1}, "config: 'widht' is not a field; did you mean 'width'?"),
        ({"optim": {"Lr": 1.0}}, "config: optim: 'Lr' is not a field; known: betas, lr"),
        ({"width": 1.0}, "config: width: expected a whole number, got 1.0"),
        ({"width": True}, "config: width: expected a whole number, got True"),
        ({"width": "1"}, "config: width: expected a whole number, got '1'"),
        ({"width": None}, "config: width: expected a whole number, got None"),
        ({"bias": 1}, "config: bias: expected true or false, got 1"),
        ({"name": 1}, "config: name: expected text, got 1"),
        ({"kind": "fet"}, "config: kind: 'fet' is not one of the choices; did you mean 'feat'?"),
        ({"kind": 3.0}, "config: kind: 3.0 is not one of the choices"),
        ({"kind": []}, "config: kind: [] is not one of the choices"),
        ({"path": 1}, "config: path: expected text, got 1"),
        ({"layers": 1}, "config: layers: expected a list, got 1"),
        ({"layers": "12"}, "config: layers: expected a list, got '12'"),
        ({"layers": [1, "x"]}, "config: layers.1: expected a whole number, got 'x'"),
        ({"optim": {"betas": [1]}}, "config: optim.betas: expected 2 values, got [1]"),
        ({"optim": {"lr": "1e-3"}}, "config: optim.lr: expected a number, got '1e-3'"),
        ({"optim": {"lr": -1.0}}, "optim.lr: must be positive, got -1.0"),
        ({"optim": None}, "config: optim: expected a group of fields, got None"),
        ({"second": {"lr": "x"}}, "config: second.lr: expected a number, got 'x'"),
        ({"second": 3}, "config: second: expected a group of fields, got 3"),
        ({"rates": {"a": "b"}}, "config: rates.a: expected a number, got 'b'"),
        ({"rates": {1: 2.0}}, "config: rates: expected a group of named values, got {1: 2.0}"),
        ({"noise": {"share": 0.5, "rate": 1.0}}, "config: noise: 'share' is not a field; known: rate"),
        ({"noise": {"seed": 1}}, "config: noise.share: is missing"),
        ({"steps": [{"rate": 1.0}, {"rate": "x"}]}, "config: steps.1.rate: expected a number, got 'x'"),
        ({1: 2}, "config: 1 is not a field"),
    ],
    ids=str,
)
def test_wrong_data_is_refused_with_its_path(change, line):
    with pytest.raises(InputError) as caught:
        config_from_dict(Config, change, base=Config())
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("name", ["width", "optim"])
def test_without_a_base_every_field_must_be_there(name):
    data = config_to_dict(Config())
    del data[name]
    with pytest.raises(InputError, match=f"^saved: {name}: is missing$"):
        config_from_dict(Config, data, where="saved")


def test_what_was_stored_before_a_field_was_added_has_its_default_and_one_line_says_so(capsys):
    data = config_to_dict(FULL)
    for place, name in ((data, "bias"), (data["optim"], "betas"), (data["steps"][1], "seed"), (data, "rates")):
        del place[name]
    expected = replace(FULL, rates={}, optim=Optim(lr=math.inf), steps=(Drop(rate=0.0), Mask(share=1.0)))
    assert stored_config(Config, data, where="a/b") == expected
    line = "a/b: was written before there was bias, rates, optim.betas, steps.1.seed; read with the default\n"
    assert capsys.readouterr() == ("", line)
    del data["optim"]
    assert stored_config(Config, data, where="a").optim == Optim()
    assert "there was bias, rates, optim, steps.1.seed;" in capsys.readouterr().err
    assert stored_config(Config, config_to_dict(FULL), where="a") == FULL
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"widht": 1}, "saved: 'widht' is not a field; did you mean 'width'?"),
        ({"noise": {"seed": 1}}, "saved: noise.share: is missing"),
        ({"width": "1"}, "saved: width: expected a whole number, got '1'"),
        (None, "saved: expected a group of fields, got None"),
    ],
    ids=str,
)
def test_what_else_is_wrong_with_a_stored_config_stays_an_error(data, line, capsys):
    with pytest.raises(InputError) as caught:
        stored_config(Config, data, where="saved")
    assert str(caught.value) == line
    assert capsys.readouterr() == ("", "")


def test_a_member_of_a_union_that_does_not_fit_leaves_nothing_to_say(capsys):
    @dataclass(frozen=True, kw_only=True)
    class Odd:
        value: tuple[Mask, Optim] | tuple[Mask, Mask]

    data = {"value": [{"share": 0.5}, {"share": 0.1, "seed": 3}]}
    assert stored_config(Odd, data, where="a").value == (Mask(share=0.5), Mask(share=0.1, seed=3))
    assert "there was value.0.seed;" in capsys.readouterr().err


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_group_of_fields(data):
    with pytest.raises(InputError, match="expected a group of fields"):
        config_from_dict(Config, data)


def test_a_base_fills_what_is_left_out_at_every_level():
    base = Config(width=5, optim=Optim(lr=7.0, betas=(0.1, 0.2)), second=Optim(lr=3.0), rates={"a": 1.0})
    laid = config_from_dict(Config, {"optim": {"lr": 2.0}, "second": {"betas": [0, 0]}, "rates": {"b": 2.0}}, base=base)
    assert (laid.width, laid.optim) == (5, Optim(lr=2.0, betas=(0.1, 0.2)))
    assert laid.second == Optim(lr=3.0, betas=(0.0, 0.0))
    assert laid.rates == {"b": 2.0}, "a table of named values is replaced whole"
    assert base.optim.lr == 7.0


def test_a_type_that_no_config_can_hold_is_our_mistake():
    @dataclass(frozen=True)
    class Odd:
        value: complex

    with pytest.raises(TypeError, match="cannot hold"):
        config_from_dict(Odd, {"value": 1})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("width: [", "is not YAML"),
        ("width: 1\nwidth: 2", "'width' stands twice"),
        ("optim: {lr: 1, lr: 2}", "'lr' stands twice"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("- 1", "expected a group of fields"),
        ("width: 3 ms", "width: expected a whole number, got '3 ms'"),
        ("widht: 3", "'widht' is not a field; did you mean 'width'?"),
        ("[" * 5000, "is not YAML"),
        ("\x00", "is not YAML"),
        ("\udcff", "is not YAML"),
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_wrong_files_name_the_file(text, line, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_config(Config, file, base=Config())
    assert str(caught.value).startswith(f"{file}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_too_large(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read \(No such file"):
        read_config(Config, tmp_path / "no.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(Config, tmp_path)
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match="too large"):
        read_config(Config, tmp_path / "large.yaml")


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_config(Config, tmp_path / "empty.yaml", base=FULL) == FULL


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", -math.inf),
        ("7", 7),
        ("-0", 0),
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        (".", "."),
    ],
)
def test_yaml_reads_as_version_1_2(text, value):
    back = load(text)
    assert type(back) is type(value)
    assert back == value


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
@example({"\x85": None, "a\u2028b": "c\u2029"})
def test_yaml_reads_what_it_writes(value):
    assert differences(value, load(dump(value))) == []


def test_differences_tell_types_apart():
    assert differences({"a": 1, "b": True}, {"a": 1.0, "b": 1}) == ["a", "b"]
    assert differences({"a": math.nan, "b": [1]}, {"a": math.nan, "b": [1, 2]}) == ["b"]
    assert differences({"a": {"b": 1}}, {"a": None}) == ["a"]
    assert differences({}, {"x": {"y": 1}}) == ["x"]
