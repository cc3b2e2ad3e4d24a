from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from apps.asr.reduction import TimeRecovery, TimeReduction, reduced_length

WIDTH = 3


@pytest.fixture
def reduction() -> TimeReduction:
    torch.manual_seed(0)
    return TimeReduction(WIDTH).double()


@pytest.fixture
def recovery() -> TimeRecovery:
    torch.manual_seed(0)
    return TimeRecovery(WIDTH).double()


def reference(model: TimeReduction, x: Tensor) -> Tensor:
    """The reduced tokens of one recording ``x (N,D)``."""
    n, width = x.shape
    rows = []
    for i in range(n // 2):
        mixed = model.depthwise.bias.clone()
        for d in range(width):
            for k in range(5):
                if 2 * i + k < n:
                    mixed[d] += model.depthwise.weight[d, 0, k] * x[2 * i + k, d]
        rows.append(model.pointwise.weight @ mixed + model.pointwise.bias)
    return torch.stack(rows + [torch.zeros(width, dtype=x.dtype)] * (n % 2))


class TestReduction:
    @pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9])
    def test_loops(self, reduction, n):
        x = torch.randn(n, WIDTH, dtype=torch.float64)
        y = reduction(x[None])[0]
        assert y.shape[0] == reduced_length(torch.tensor(n)) == math.ceil(n / 2)
        torch.testing.assert_close(y, reference(reduction, x), rtol=1e-12, atol=1e-12)

    def test_nothing(self, reduction):
        assert reduction(torch.zeros(2, 0, WIDTH, dtype=torch.float64)).shape == (2, 0, WIDTH)

    @pytest.mark.parametrize("n", [10, 11])
    def test_token_reads_five(self, reduction, n):
        x = torch.randn(1, n, WIDTH, dtype=torch.float64)
        base = reduction(x)
        for token in range(n):
            changed = x.clone()
            changed[0, token] += 1
            moved = (reduction(changed) != base).any(-1)[0].nonzero().flatten().tolist()
            assert moved == [i for i in range(n // 2) if 2 * i <= token <= 2 * i + 4]

    def test_batch_of_many_is_batches_of_one(self, reduction):
        lengths = torch.arange(0, 9)
        x = torch.randn(9, 10, WIDTH, dtype=torch.float64)
        x[torch.arange(10) >= lengths[:, None]] = math.nan
        many = reduction(x, lengths)
        assert many.shape == (9, 5, WIDTH)
        for row, n in enumerate(lengths.tolist()):
            kept = math.ceil(n / 2)
            torch.testing.assert_close(many[row, :kept], reduction(x[row : row + 1, :n])[0], rtol=1e-12, atol=1e-12)
            assert bool((many[row, kept:] == 0).all())


class TestRecovery:
    @pytest.mark.parametrize("n", [0, 1, 2, 3, 6, 7])
    def test_each_token_at_both_places(self, recovery, n):
        y = torch.randn(2, math.ceil(n / 2), WIDTH, dtype=torch.float64)
        saved = torch.randn(2, n, WIDTH, dtype=torch.float64)
        got = recovery(y, saved)
        assert got.shape == saved.shape
        for row in range(2):
            for j in range(n):
                wanted = saved[row, j] + recovery.linear.weight @ y[row, j // 2] + recovery.linear.bias
                torch.testing.assert_close(got[row, j], wanted, rtol=1e-12, atol=1e-12)
