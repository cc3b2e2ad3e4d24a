"""The catalogue as a command, over an application of a few lines: what it takes is what it says when it is asked."""

import json
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from torch import nn

import core.application.blocks
from core.application import Application
from core.application.blocks import blocks, entries
from core.application.takers import Place, in_words, places
from core.attention import MIXERS, Capabilities, IdentityMixer
from core.errors import InputError
from core.layout.build import TABLES
from core.layout.catalogue import row_of, rows


@dataclass(frozen=True, kw_only=True)
class Net:
    width: int = 4
    mixer: str = "softmax"
    mask: Literal["causal", "full"] = "causal"
    norm: str = "layernorm"
    head_norm: str = "layernorm"
    norm_eps: float = 1e-5
    strict: bool = True


@dataclass(frozen=True, kw_only=True)
class Settings:
    model: Net = field(default_factory=Net)


class Toy(Application):
    """Takes mixers that can do what its mask asks, and any norm but one, which its head never takes."""

    name = "toy"
    presets = {"first": Settings, "second": lambda: Settings(model=Net(mask="full"))}  # noqa: RUF012

    def prototype(self, config):
        model = config.model
        if model.mask == "causal" and not TABLES["mixer"][model.mixer].capabilities.causal:
            raise InputError(f"{model.mixer!r} is not causal", where="model.mixer", mend="use the mask 'full'")
        if model.norm == "groupnorm" and (model.strict or model.mask == "causal"):
            raise InputError("two settings keep it out", where="model.norm")
        if model.head_norm == "batchnorm":
            raise InputError("never", where="model.head_norm")
        return nn.Identity()


Toy.__abstractmethods__ = frozenset()  # the rest of an application is not asked


def answers(family, name):
    (row,) = (row for row in rows() if (row.family, row.name) == (family, name))
    return places(Toy(), row, rows())


def test_what_the_first_preset_takes():
    assert answers("mixer", "softmax") == (Place(field="model.mixer", takes=True),)


def test_a_refusal_comes_with_its_reason_and_the_setting_that_lifts_it():
    reason = "model.mixer: 'pooling' is not causal; use the mask 'full'"
    assert answers("mixer", "pooling") == (
        Place(field="model.mixer", takes=False, beside="model.mask=full", reason=reason),
    )


def test_what_needs_two_other_settings_is_not_taken():
    first, second = answers("norm", "groupnorm")
    assert (first.takes, first.beside, first.reason) == (False, None, "model.norm: two settings keep it out")
    assert second == Place(field="model.head_norm", takes=True)


def test_each_place_is_asked():
    found = answers("norm", "batchnorm")
    assert [(place.field, place.takes) for place in found] == [("model.norm", True), ("model.head_norm", False)]
    assert in_words("toy", found) == "toy (model.norm)"


def test_a_family_without_a_place():
    assert answers("feedforward", "mlp") == ()
    assert in_words("toy", ()) is None


def test_a_mistake_of_the_application_is_no_answer(monkeypatch):
    monkeypatch.setattr(Toy, "prototype", lambda self, config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answers("mixer", "softmax")


def test_a_block_that_joins_a_table_is_asked_for(monkeypatch, capsys):
    class Sum(IdentityMixer):
        """The sum of all positions."""

        capabilities = Capabilities(causal=True)
        source = "ours"
        cost = "0"

    monkeypatch.setitem(MIXERS, "sum", Sum)
    monkeypatch.setitem(TABLES["mixer"], "sum", Sum)
    (entry,) = entries({"toy": Toy()}, [row_of(Sum, family="mixer", room="attention", name="sum")])
    assert entry.takers == ["toy"]
    blocks({"toy": Toy()}, [])
    assert "  sum            toy" in capsys.readouterr().out


def test_every_block_has_one_line(capsys):
    blocks({"toy": Toy(), "other": None}, [])
    lines = capsys.readouterr().out.splitlines()
    for row in rows():
        assert sum(line.split()[:1] == [row.name] and row.line in line for line in lines) == 1
    assert "other: not installed, not asked" in lines


def test_one_family(capsys):
    blocks({"toy": Toy()}, ["--family", "norm"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == ["block", *(row.name for row in rows() if row.family == "norm")]


@pytest.mark.parametrize("name", ["pooling", "Pooling"])
def test_everything_about_one(name, capsys):
    blocks({"toy": Toy(), "other": None}, [name])
    assert capsys.readouterr().out.splitlines()[:8] == [
        "mixer pooling: The mean of the neighbourhood minus the position itself.",
        "  class      core.attention.Pooling",
        "  can        masked, packed",
        "  options    pool: 3",
        "  source     Yu et al., PoolFormer, arXiv 2111.11418",
        "  cost       0; N D pool additions",
        "  toy        not as model.mixer: 'pooling' is not causal; use the mask 'full'; takes it with model.mask=full",
        "  other      not installed",
    ]


def test_a_name_of_two_families(capsys):
    blocks({"toy": Toy()}, ["identity"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line[:1].islower()] == [
        "mixer identity",
        "norm identity",
    ]
    blocks({"toy": Toy()}, ["identity", "--family", "norm"])
    assert "mixer identity" not in capsys.readouterr().out


def test_a_family_of_a_room_above_is_listed_by_its_rows_alone(monkeypatch, capsys):
    row = replace(rows()[0], family="saw", name="cut", room="rewrite", block="Cut", line="Cuts.", options={})
    monkeypatch.setattr(core.application.blocks, "known", lambda: (*rows(), row))
    blocks({"toy": Toy()}, ["--family", "saw"])
    assert capsys.readouterr().out.splitlines()[0] == "saw"
    blocks({"toy": Toy()}, ["cut"])
    assert "  toy        has no place for a saw" in capsys.readouterr().out.splitlines()


def test_json(capsys):
    blocks({"toy": Toy(), "other": None}, ["pooling", "--json"])
    (fact,) = json.loads(capsys.readouterr().out)
    assert (fact["family"], fact["name"], fact["block"], fact["options"]) == (
        "mixer",
        "pooling",
        "Pooling",
        {"pool": "3"},
    )
    assert fact["applications"]["other"] is None
    assert [(place["takes"], place["beside"]) for place in fact["applications"]["toy"]] == [(False, "model.mask=full")]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["sftmax"], "manyformer blocks: no block 'sftmax'; did you mean 'softmax'?"),
        (["softmax", "--family", "norm"], "manyformer blocks: no norm 'softmax'; it is a mixer"),
        (["layrnorm", "--family", "norm"], "manyformer blocks: no norm 'layrnorm'; did you mean 'layernorm'?"),
        (["x" * 9, "--family", "position"], f"manyformer blocks: no position '{'x' * 9}'; known: alibi, none, rotary"),
        (["--family", "nrom"], "manyformer blocks --family: no family 'nrom'; did you mean 'norm'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_names_are_one_line(argv, line):
    with pytest.raises(InputError) as error:
        blocks({"toy": Toy()}, argv)
    assert str(error.value) == line
