"""A loss whose gradients are taken at once, so that what it was computed from can go.

A step of several losses, one after another, holds the graphs of all of them until it goes backward. :func:`settled`
goes backward through one of them in advance; what is left is a number that knows its gradients:

    d(c L)/dw = c dL/dw    whatever c the rest of the step puts before it

Gradients are as many numbers as weights, a graph many times as many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def settled(loss: Float[Tensor, ""], parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    """``loss`` as a function of ``parameters`` alone, its graph being gone; as it is, where there is no graph.

    Weights that are divided among processes are put together while the model computes, and the loss is a function of
    what they are then: it stays as it is too.

    Args:
        loss: whose graph nothing else needs.
        parameters: all that shall get gradients of it.

    >>> weight = nn.Parameter(torch.tensor(3.0))
    >>> (2 * settled(weight**2, [weight])).backward()
    >>> weight.grad
    tensor(12.)
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not wanted or any(hasattr(parameter, "to_local") for parameter in wanted):
        return loss
    with torch.autocast(loss.device.type, enabled=False):  # a backward pass is none of its affair
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    number: Tensor = _Settled.apply(loss.detach(), gradients, *wanted)
    return number


class _Settled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor | None, ...], *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if each is None else each * grad for each in ctx.saved_tensors)
