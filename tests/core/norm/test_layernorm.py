"""Sixteen bits with float32 parameters: one result with gradients and without, and gradients summed in float32."""

import pytest
import torch

from core.norm import LayerNorm
from core.testing.tolerances import draw


def drawn(width):
    norm = LayerNorm(width)
    with torch.no_grad():
        norm.weight.add_(0.3 * draw(width, seed=1))
        norm.bias.add_(0.3 * draw(width, seed=2))
    return norm


@pytest.mark.parametrize("width", [1, 7, 32, 160])
def test_sixteen_bits_are_normalised_as_in_float32(width):
    norm, x = drawn(width), (3 * draw(5, 6, width) + 1).bfloat16()
    wanted = norm.double()(x.double()).bfloat16()
    norm.float()
    with torch.no_grad():
        without = norm(x)
    assert without.dtype == torch.bfloat16
    unit = 2.0**-7
    for found in (without, norm(x)):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=unit, atol=1e-6)


def test_gradients_over_many_tokens_are_not_added_up_in_sixteen_bits():
    norm, x, grad = drawn(8), (3 * draw(1, 16384, 8) + 1).bfloat16(), (draw(1, 16384, 8, seed=3) + 0.3).bfloat16()
    found = torch.autograd.grad(norm(x), list(norm.parameters()), grad)
    norm.double()
    wanted = torch.autograd.grad(norm(x.double()), list(norm.parameters()), grad.double())
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-2)
