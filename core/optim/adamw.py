r"""AdamW: Adam with the decay taken out of the gradient.

Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101), in the form PyTorch gives it.
With gradient ``g``, step ``t`` and rate ``lr``::

    p <- (1 - lr * weight_decay) p
    m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

State of a parameter of any shape: ``step`` () float32, ``exp_avg`` and ``exp_avg_sq`` of its shape, all float32
whatever the parameter's type. A 16-bit counter would stop at 256 and a 16-bit second moment could not follow
``beta2 = 0.999``; so for 16-bit parameters the step is taken in float32 and rounded once (small steps can still be lost
in that rounding: keep float32 parameters and use autocast unless memory forbids it).

float32 parameters go through PyTorch's fused kernel and match ``torch.optim.AdamW(fused=True)`` bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from core.errors import InputError

DEFAULTS: Mapping[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}

# Devices whose fused kernel we rely on; elsewhere the horizontally batched form does the same arithmetic.
_FUSED_DEVICES = ("cpu", "cuda")


def check(group: Mapping[str, Any]) -> None:
    """Refuse hyper-parameters outside their range.

    Raises:
        InputError: naming the hyper-parameter.
    """
    beta1, beta2 = group["betas"]
    ranges = {
        "lr": group["lr"] >= 0,
        "eps": group["eps"] >= 0,
        "weight_decay": group["weight_decay"] >= 0,
        "betas": 0 <= beta1 < 1 and 0 <= beta2 < 1,
    }
    for name, fits in ranges.items():
        if not fits:
            raise InputError(f"{name} = {group[name]} is out of range", where="adamw")


def init(parameter: Tensor) -> dict[str, Tensor]:
    """Zeros for one parameter, all float32."""

    def zeros() -> Tensor:
        return torch.zeros_like(parameter, dtype=torch.float32, memory_format=torch.preserve_format)

    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": zeros(),
        "exp_avg_sq": zeros(),
    }


def step(parameters: Sequence[Tensor], states: Sequence[Mapping[str, Tensor]], group: Mapping[str, Any]) -> None:
    """One step, in place, on parameters that all have a gradient; of divided ones (DTensor) on this process's part."""
    gradients = [_gradient(parameter) for parameter in parameters]
    if hasattr(parameters[0], "to_local"):
        # The rule takes every number for itself, so that nothing has to be gathered.
        parameters, gradients = [_own(one) for one in parameters], [_own(one) for one in gradients]
        states = [{name: _own(value) for name, value in state.items()} for state in states]
    if all(parameter.dtype == torch.float32 for parameter in parameters):
        _apply([*parameters], gradients, states, group)
        return
    wide = [parameter.float() for parameter in parameters]
    _apply(wide, [gradient.float() for gradient in gradients], states, group)
    for parameter, value in zip(parameters, wide, strict=True):
        if parameter is not value:
            parameter.copy_(value)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _own(tensor: Tensor) -> Tensor:
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def _apply(
    values: list[Tensor], gradients: list[Tensor], states: Sequence[Mapping[str, Tensor]], group: Mapping[str, Any]
) -> None:
    beta1, beta2 = group["betas"]
    fused = values[0].device.type in _FUSED_DEVICES
    adamw(
        values,
        gradients,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=fused,
        foreach=not fused,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
