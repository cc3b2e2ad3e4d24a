"""The counter against what is written on paper."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.common.counting import by_operation, multiply_adds

B, T, D, H, KERNEL = 2, 37, 24, 4, 31


@pytest.mark.parametrize(
    ("module", "x", "expected"),
    [
        (nn.Linear(D, 5), torch.ones(B, T, D), B * T * D * 5),
        (nn.Linear(D, 5, bias=False), torch.ones(B, T, D), B * T * D * 5),
        (nn.Conv1d(D, 2 * D, 1), torch.ones(B, D, T), B * T * D * 2 * D),
        (nn.Conv1d(D, D, KERNEL, padding=15, groups=D), torch.ones(B, D, T), B * T * D * KERNEL),
        (nn.Conv2d(1, D, 3, stride=2), torch.ones(B, 1, 9, 9), B * 16 * D * 9),
        (nn.Conv2d(D, D, 3, stride=2, groups=D), torch.ones(B, D, 9, 9), B * 16 * D * 9),
        (nn.LayerNorm(D), torch.ones(B, T, D), 0),
    ],
    ids=["linear", "linear without bias", "pointwise", "depthwise", "conv2d", "depthwise conv2d", "norm"],
)
def test_modules(module, x, expected):
    assert multiply_adds(lambda: module(x)) == expected


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_costs_the_same_however_it_is_run(inference, masked, dropout):
    q, k, v = torch.randn(3, B, H, T, D // H)
    mask = torch.ones(B, 1, 1, T, dtype=torch.bool) if masked else None
    with torch.inference_mode(inference):
        fused = by_operation(
            lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        )
        plain = multiply_adds(lambda: (q @ k.mT).softmax(-1) @ v)
    assert sum(fused.values()) == plain == 2 * B * T * T * D


def test_gradients_are_left_off():
    weight = torch.ones(3, 3, requires_grad=True)
    found = []
    multiply_adds(lambda: found.append((weight @ weight).requires_grad))
    assert found == [False]
