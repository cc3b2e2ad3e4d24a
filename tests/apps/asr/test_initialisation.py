from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from apps.asr.config import ModelConfig
from apps.asr.model import Squeezeformer

WIDTH = 24


@pytest.fixture(scope="module")
def model() -> Squeezeformer:
    torch.manual_seed(0)
    return Squeezeformer(80, 64, ModelConfig(width=WIDTH, layers=2, heads=2, reduce=0))


def assert_fills(value: Tensor, bound: float) -> None:
    """Uniform in +-bound: nothing beyond, the variance right, and the ends reached as far as the numbers allow."""
    assert bool((value.abs() <= bound).all())
    count = value.numel()
    assert value.abs().max() > bound * (1 - 8 / count)
    # The variance of n squares of a uniform number is (4/45) bound^4 / n.
    error = (value.square().mean() - bound**2 / 3).abs()
    assert error < 5 * bound**2 * math.sqrt(4 / 45 / count)


def fan_ins(model: Squeezeformer) -> list[tuple[torch.nn.Module, int]]:
    attention, feedforward, convolution, _ = (sublayer.block for sublayer in model.reduced.sublayers)
    front, reduction = model.subsampling, model.reduction
    return [
        (attention.qkv, WIDTH),
        (attention.out, WIDTH),
        (feedforward.up, WIDTH),
        (feedforward.down, 4 * WIDTH),
        (convolution.pointwise_in, WIDTH),
        (convolution.depthwise, 31),
        (convolution.pointwise_out, WIDTH),
        (front.conv1, 9),
        (front.depthwise, 9),
        (front.pointwise, WIDTH),
        (front.linear, 20 * WIDTH),
        (reduction.depthwise, 5),
        (reduction.pointwise, WIDTH),
    ]


class TestRanges:
    def test_fan_in(self, model):
        for module, fan_in in fan_ins(model):
            assert_fills(module.weight, fan_in**-0.5)
            assert_fills(module.bias, fan_in**-0.5)

    def test_position(self, model):
        position = model.reduced.sublayers[0].block.position
        assert position.bias is None
        assert_fills(position.weight, WIDTH**-0.5)

    def test_glorot(self, model):
        for linear, fans in ((model.recovery.linear, 2 * WIDTH), (model.head, WIDTH + 64)):
            assert_fills(linear.weight, math.sqrt(6 / fans))
            assert bool((linear.bias == 0).all())

    def test_constants(self, model):
        attention, convolution = model.reduced.sublayers[0], model.reduced.sublayers[2].block
        norms = [attention.norms[0], convolution.norm, model.subsampling.norm]
        assert all(bool((one == 1).all()) for one in [attention.scale.gain, *(norm.weight for norm in norms)])
        zeros = [attention.scale.bias, attention.block.u, attention.block.v, *(norm.bias for norm in norms)]
        assert all(bool((zero == 0).all()) for zero in zeros)
