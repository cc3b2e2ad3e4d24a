"""Gradients taken in advance are those that would have been taken later."""

import gc
import weakref

import pytest
import torch
from torch import nn

from apps.vision.segmentation.settled import settled


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2), nn.Linear(2, 1)).double()


def gradients(model):
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_gradients_are_those_of_the_sum(factor):
    model, x = network(), torch.randn(7, 3, dtype=torch.float64)
    (factor * (model(x).square().mean() + 0.5 * model(-x).exp().mean())).backward()
    wanted = gradients(model)
    model.zero_grad()
    first = settled(model(x).square().mean(), model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    loss = factor * (first + 0.5 * model(-x).exp().mean())
    loss.backward()
    torch.testing.assert_close(gradients(model), wanted, rtol=1e-12, atol=1e-14)
    model.zero_grad()
    with torch.no_grad():
        again = factor * (model(x).square().mean() + 0.5 * model(-x).exp().mean())
    torch.testing.assert_close(loss.detach(), again)


def test_the_graph_is_gone():
    model, x = network(), torch.randn(7, 3, dtype=torch.float64)
    inner = model[:2](x)
    held = weakref.ref(inner)
    loss = settled(model[2:](inner).square().mean(), model.parameters())
    del inner
    gc.collect()
    assert held() is None
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_takes_no_part_gets_none_and_what_is_frozen_neither():
    model, x = network(), torch.randn(7, 3, dtype=torch.float64)
    model[0].requires_grad_(False)
    settled(model[:3](x).square().mean(), model.parameters()).backward()
    assert [each is None for each in gradients(model)] == [True, True, False, False, True, True]


def test_without_a_graph_a_loss_is_itself():
    model = network()
    constant = torch.tensor(2.0)
    assert settled(constant, model.parameters()) is constant
    free = (2 * model[0].weight).sum()
    assert settled(free, []) is free


@pytest.mark.untyped
def test_divided_weights_are_left_to_the_one_backward_pass():
    class Divided:
        requires_grad = True

        def to_local(self):
            raise AssertionError

    loss = (2 * network()[0].weight).sum()
    assert settled(loss, [Divided()]) is loss


def test_under_autocast():
    model, x = network().float(), torch.randn(7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = torch.autograd.grad(model(x).float().square().mean(), model.parameters())
        loss = settled(model(x).float().square().mean(), model.parameters())
    loss.backward()
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad.dtype == torch.float32
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-2, atol=1e-3)
