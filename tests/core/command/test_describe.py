from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from core.command import measured, switches


def test_multiply_adds_of_linear_convolution_and_product():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 7)
            self.conv = nn.Conv1d(7, 3, 4, bias=False)

        def forward(self, x):
            h = self.linear(x)
            return self.conv((h @ h.transpose(1, 2) @ h).transpose(1, 2))

    net = Net().train()
    facts = measured(net, lambda model: model(torch.zeros(2, 6, 5)))
    linear, product, conv = 2 * 6 * 5 * 7, 2 * 2 * 6 * 6 * 7, 2 * 3 * 3 * 7 * 4
    assert facts["macs"] == linear + product + conv
    assert facts["parameters"] == 5 * 7 + 7 + 3 * 7 * 4
    assert facts["memory_mb"] == 4 * facts["parameters"] / 1e6


def test_switches_are_words_and_bools():
    @dataclass(frozen=True)
    class Config:
        width: int = 3
        norm: str = "layernorm"
        bias: bool = False
        rate: float = 0.1

    assert switches(Config()) == {"norm": "layernorm", "bias": False}


def test_fused_attention_is_counted():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    facts = measured(Attention(), lambda model: model(torch.zeros(2, 3, 11, 8)))
    assert facts["macs"] == 2 * (2 * 3 * 11 * 11 * 8)
