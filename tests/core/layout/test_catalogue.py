"""The catalogue says what is so: every member is in it, and costs are those that are measured."""

import ast
import inspect
import operator
import re

import pytest
import torch
from torch import nn

from core.attention import MIXERS, Capabilities, IdentityMixer, Mixer
from core.command import measured
from core.convolution import CONVOLUTIONS
from core.feedforward import FEEDFORWARDS
from core.layout.catalogue import NEEDED, ROOMS, capabilities, row_of, rows
from core.norm import NORMS, Identity
from core.position import POSITIONS

MEMBERS = [(room, name, block) for room, (_, table) in ROOMS.items() for name, block in table.items()]
MEASURED = {**MIXERS, **CONVOLUTIONS, **FEEDFORWARDS}
VALUES = {"heads": 4, "k": 3, "kernel": 7, "hidden": 20, "pool": 3, "reduction": 2}
"""Of the options that costs depend on."""
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def value_of(formula, values):
    """A formula as costs are written: factors side by side, ``^`` for powers."""
    text = re.sub(r"(?<=[\w)]) +(?=[\w(])", " * ", formula).replace("^", "**")

    def value(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        return values[node.id] if isinstance(node, ast.Name) else node.value

    return value(ast.parse(text, mode="eval").body)


def settings(block, tokens):
    """Values of all options that a cost can name, and those of them that the constructor is given."""
    known = inspect.signature(block).parameters
    defaults = {name: p.default for name, p in known.items() if isinstance(p.default, int)}
    chosen = {name: value for name, value in {**VALUES, "tokens": tokens}.items() if name in known}
    return {**defaults, **chosen}, chosen


def test_formulas_are_read_as_written():
    assert value_of("4 N D^2 + 2 N^2 D - N D / heads", {"N": 3, "D": 4, "heads": 2}) == 192 + 72 - 6


def test_every_member_of_every_table_is_there_once():
    tables = [MIXERS, CONVOLUTIONS, NORMS, FEEDFORWARDS, POSITIONS]
    assert [table for _, table in ROOMS.values()] == tables
    assert [(row.room, row.name, row.block) for row in rows()] == [
        (room, name, block.__name__) for room, name, block in MEMBERS
    ]


@pytest.mark.parametrize(("room", "name", "block"), MEMBERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_member_says_source_and_cost_itself(room, name, block):
    """What it inherits is of another one."""
    for fact in ("source", "cost"):
        assert isinstance(vars(block)[fact], str)
        assert vars(block)[fact].strip()
    (row,) = (row for row in rows() if (row.room, row.name) == (room, name))
    assert re.search(r"arXiv \d{4}\.\d{4,5}|github\.com/|\bours\b", row.source), row.source
    assert row.line.endswith(".")
    assert ":class:" not in row.line
    assert ":func:" not in row.line


@pytest.mark.parametrize("size", [(12, 32), (40, 16)], ids=str)
@pytest.mark.parametrize("name", MEASURED)
def test_costs_are_those_measured(name, size):
    (tokens, width), block = size, MEASURED[name]
    values, given = settings(block, tokens)
    module, x = block(width, **given), torch.randn(1, tokens, width)
    place = {"grid": (2, tokens // 2)} if "on a grid" in capabilities(block, name) else {}
    stated = value_of(block.cost.partition(";")[0], {"N": tokens, "D": width, **values})
    assert measured(module, lambda network: network(x, **place))["macs"] == stated


SAID = [
    ("minimal", {"qk": "full", "vo": "full"}, "4 N D^2 + 2 N^2 D"),
    ("minimal", {"vo": "none"}, "N D^2 + 2 N^2 D"),
    ("convolution", {"activation": "glu", "kernel": 7}, "3 N D^2 + N D kernel"),
    ("glu", {"hidden": 16, "project": False}, "2 N D hidden"),
    ("experts", {"hidden": 20, "expert": "glu"}, "N D experts + 3 N D hidden active"),
]


@pytest.mark.parametrize(("name", "options", "formula"), SAID, ids=lambda value: str(value))
def test_what_costs_say_of_options_is_measured_too(name, options, formula):
    block = MEASURED[name]
    values, _ = settings(block, 12)
    x = torch.randn(1, 12, 16)
    macs = measured(block(16, **options), lambda network: network(x))["macs"]
    assert macs == value_of(formula, {"N": 12, "D": 16, **values, **options})


def test_relative_attention_costs_less_once_its_positions_are_kept():
    module, x, longer = MIXERS["relative"](16, 4), torch.randn(1, 40, 16), torch.randn(1, 200, 16)
    once, of_longer = (value_of(module.cost.partition(";")[0], {"N": tokens, "D": 16}) for tokens in (40, 200))
    assert measured(module, lambda network: (network(x), network(x)))["macs"] == 2 * once - 40 * 16**2
    assert measured(module, lambda network: network(longer))["macs"] < of_longer


@pytest.mark.parametrize("name", NORMS)
def test_norms_say_whether_they_fold_away(name):
    norm = NORMS[name](8).eval()
    bare, _ = norm.fold_into(nn.Linear(8, 3))
    assert ("folds away in evaluation" in norm.cost) == isinstance(bare, Identity)
    fewer = len(list(norm.parameters())) > len(list(bare.parameters()))
    assert ("fold" in norm.cost) == (fewer or isinstance(bare, Identity))


def test_every_capability_has_a_word():
    plain = Capabilities()
    for name in Capabilities.__dataclass_fields__:
        assert Capabilities(**{name: not getattr(plain, name)}).words != plain.words, name


def test_a_block_that_joins_a_table_is_in_the_catalogue(monkeypatch):
    class Sum(IdentityMixer):
        """The sum of all positions.

        More about it.
        """

        capabilities = Capabilities(masked=True)
        source = "ours"
        cost = "0"

        def __init__(self, width: int, twice: bool, *, names: tuple[str, ...] = ("a",)) -> None:
            super().__init__(width)

    monkeypatch.setitem(MIXERS, "sum", Sum)
    (row,) = (row for row in rows() if row.name == "sum")
    assert row == row_of(Sum, family="mixer", room="attention", name="sum")
    assert (row.family, row.line, row.capabilities) == ("mixer", "The sum of all positions.", ("masked",))
    assert row.options == {"twice": NEEDED, "names": "('a',)"}
    assert issubclass(Sum, Mixer)
