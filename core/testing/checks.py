"""Checks that every block passes, whatever its room: gradients, compilation, export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.testing.tolerances import assert_close, draw

# Around the sizes at which vectorised and blocked kernels change over.
LENGTHS = (0, 1, 7, 63, 127, 129)


# What a module is called with: its first argument and the named ones.
Call = tuple[Tensor, Mapping[str, Any]]


def agree(
    module: nn.Module,
    actual: Callable[[Tensor], Tensor],
    expected: Callable[[Tensor], Tensor],
    x: Tensor,
    note: str,
) -> None:
    """Two functions of ``x`` and of the module's parameters have equal values and equal gradients.

    ``expected`` is given ``x`` in float64; gradients are those of the result's inner product with fixed numbers.
    """
    x = x.detach().requires_grad_()
    inputs = [x, *module.parameters()]
    results = []
    for function, argument in ((actual, x), (expected, x.double())):
        y = function(argument)
        # The second term is zero, and connects the input where no token exists.
        loss = (y.double() * draw(*y.shape, seed=7)).sum() + 0 * argument.sum()
        grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        results.append((y, *grads))
    names = ["result", "gradient of x", *(f"gradient of {name}" for name, _ in module.named_parameters())]
    for name, got, wanted in zip(names, *results, strict=True):
        assert_close(got, wanted, x.dtype, f"{note}, {name}")


def gradients(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Analytic and numeric gradients agree, for ``x`` and for every parameter (float64, small sizes)."""
    parameters = list(module.parameters())

    def run(argument: Tensor, *_: Tensor) -> Tensor:
        return function(argument)

    assert torch.autograd.gradcheck(run, (x.detach().requires_grad_(), *parameters), fast_mode=False)


def compiles(module: nn.Module, x: Tensor, options: Mapping[str, Any], backend: str = "aot_eager") -> None:
    """``torch.compile`` makes one graph of it, with equal results and gradients."""
    torch._dynamo.reset()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    got, wanted = (_with_gradients(f, module, x, options) for f in (compiled, module))
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, x.dtype, f"compiled with {backend}")


def exports(module: nn.Module, example: Call, other: Call) -> None:
    """``torch.export`` takes it with free first axes: traced on one call, equal on it and on one of other sizes."""
    free: Any = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    x, options = example
    shapes = {"x": free}
    for name, value in options.items():
        shapes[name] = free if isinstance(value, Tensor) else tuple(None for _ in value)
    program = torch.export.export(module, (x,), dict(options), dynamic_shapes=shapes, strict=False).module()
    with torch.no_grad():
        for x, options in (example, other):
            assert_close(program(x, **options), module(x, **options), x.dtype, f"exported, {tuple(x.shape)}")


def _with_gradients(f: Callable[..., Tensor], module: nn.Module, x: Tensor, options: Mapping[str, Any]) -> list[Tensor]:
    leaf = x.detach().requires_grad_()
    y = f(leaf, **options)
    inputs = [leaf, *module.parameters()]
    return [y, *torch.autograd.grad(y.square().sum(), inputs, allow_unused=True, materialize_grads=True)]
