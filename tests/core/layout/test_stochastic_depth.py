"""Stochastic depth: whole sequences lose a branch, in training alone, and the expectation stays."""

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.layout import Entry, build
from core.layout.residual import Residual
from core.sequence import Ragged


def test_a_sequence_loses_all_or_nothing():
    torch.manual_seed(0)
    residual = Residual(nn.Identity(), "none", drop_path=0.25).train()
    x = torch.ones(4000, 3, 2)
    added = (residual(x) - x).flatten(1)
    assert bool((added == added[:, :1]).all())
    assert sorted(set(added[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert float((added[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(residual.eval()(x), 2 * x)


def test_packed_rows_of_a_sequence_go_together():
    torch.manual_seed(0)
    residual = Residual(nn.Identity(), "none", drop_path=0.5).train()
    lengths = torch.tensor([3, 0, 5, 1] * 50)
    packed = Ragged.from_lengths(lengths, 5)
    x = torch.ones(int(lengths.sum()), 2)
    parts = (residual(x, packed=packed) - x).split(lengths.tolist())
    kept = [set(part.flatten().tolist()) for part in parts if len(part)]
    assert all(len(values) == 1 for values in kept)
    assert {next(iter(values)) for values in kept} == {0.0, 2.0}


def test_it_follows_the_seed_and_the_layout():
    layout = (Entry("mixer", "pooling", drop_path=0.5), Entry("feedforward", "mlp", {"hidden": 4}, drop_path=0.5))
    stack, x = build(layout, 4).train(), torch.randn(16, 5, 4)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(stack(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(stack.eval()(x), stack(x))
    assert "drop_path=0.5" in repr(stack)
    stack.train()(torch.randn(9, 4), offsets=torch.tensor([0, 4, 9]))


def test_a_rate_outside_its_range_is_refused():
    with pytest.raises(InputError, match=r"drop_path 1.0 is outside \[0, 1\)"):
        build((Entry("mixer", "pooling", drop_path=1.0),), 4)
