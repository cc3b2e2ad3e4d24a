from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.optim import OptimConfig, route


class Gate(nn.Module):
    parameter_roles: ClassVar[dict[str, str]] = {"scale": "gain"}

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


class Model(nn.Module):
    """One of everything; the output table is tied to the input table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3)
        self.conv = nn.Conv1d(3, 3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.hidden = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.gate = Gate()
        self.again = self.hidden
        self.out = nn.Linear(3, 10)
        self.out.weight = self.table.weight


ROLES = {
    "table.weight": "embedding",
    "conv.weight": "matrix",
    "conv.bias": "bias",
    "norm.weight": "norm",
    "norm.bias": "norm",
    "hidden.weight": "matrix",
    "hidden.bias": "bias",
    "gate.scale": "gain",
    "out.bias": "bias",
}


def roles(model, rules=()):
    return {entry.name: entry.role for entry in route(model, rules).entries}


def test_every_parameter_has_its_role():
    assert roles(Model()) == ROLES


def test_every_trainable_parameter_is_optimised_once():
    model = Model()
    optimizer = OptimConfig().build(model)
    counts = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert counts == dict.fromkeys(trainable, 1)


def test_rules_win_in_order_and_know_every_name_of_a_tied_parameter():
    changed = roles(Model(), [("out.weight", "head"), ("*.bias", "gain"), ("norm.*", "head")])
    assert changed == {
        **ROLES,
        "table.weight": "head",
        "norm.weight": "head",
        **{name: "gain" for name in ROLES if name.endswith(".bias")},
    }


def test_a_class_declares_over_its_type():
    class Table(nn.Linear):
        parameter_roles: ClassVar[dict[str, str]] = {"weight": "embedding"}

    assert roles(Table(2, 2)) == {"weight": "embedding", "bias": "bias"}


def test_bare_parameters_must_be_placed():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(4))
            self.input_bias = nn.Parameter(torch.zeros(4))

    with pytest.raises(InputError, match="parameter 'token' of Bare has no role"):
        route(Bare())
    assert roles(Bare(), [("token", "embedding")]) == {"token": "embedding", "input_bias": "bias"}


def test_attention_of_torch_is_routed():
    assert roles(nn.TransformerEncoderLayer(8, 2, 16), [("*in_proj_weight", "matrix")]) == {
        "self_attn.in_proj_weight": "matrix",
        "self_attn.in_proj_bias": "bias",
        "self_attn.out_proj.weight": "matrix",
        "self_attn.out_proj.bias": "bias",
        **{f"linear{n}.{part}": role for n in "12" for part, role in (("weight", "matrix"), ("bias", "bias"))},
        **{f"norm{n}.{part}": "norm" for n in "12" for part in ("weight", "bias")},
    }


def test_decay_is_for_matrices_and_heads_unless_overridden():
    routing = route(Model(), [("conv.weight", "head")])
    groups = {
        group["name"]: group for group in routing.groups(0.1, 0.3, {"embedding": {"lr": 1.0, "weight_decay": 0.2}})
    }
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "matrix": (0.1, 0.3),
        "embedding": (1.0, 0.2),
        "head": (0.1, 0.3),
        "bias": (0.1, 0.0),
        "norm": (0.1, 0.0),
        "gain": (0.1, 0.0),
    }


def test_report():
    routing = route(Model())
    lines = routing.report(routing.groups(0.1, 0.3)).splitlines()
    assert lines[0] == "name           shape  role       kind   lr   decay"
    assert lines[1] == "table.weight   10x3   embedding  adamw  0.1  0"
    assert lines[2] == "conv.weight    3x3x3  matrix     adamw  0.1  0.3"
    assert len(lines) == 1 + len(ROLES)
    assert str(routing).splitlines()[0] == "name           shape  role"


@pytest.mark.parametrize(
    ("rules", "words"),
    [([("*", "matrx")], "no role 'matrx'; did you mean 'matrix'"), ([("hiden.*", "head")], "'hiden.*' matches no")],
)
def test_wrong_rules_are_refused(rules, words):
    with pytest.raises(InputError, match=words):
        route(Model(), rules)


def test_wrong_overrides_are_refused():
    with pytest.raises(InputError, match="overrides: no role 'gains'"):
        route(Model()).groups(0.1, overrides={"gains": {"lr": 1.0}})
