"""What a model is made of: the facts that every ``info`` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _fused_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention}
"""Of operations that torch's counter takes for free; shapes come in place of tensors."""


def measured(model: nn.Module, call: Callable[[nn.Module], object]) -> dict[str, Any]:
    """Parameters, multiply-adds and memory of one network.

    ``macs`` are the multiply-adds of matrix products, convolutions and attention in ``call``, one forward pass in
    evaluation mode; ``memory_mb`` is what the weights take in float32, in MB of 10^6 bytes.

    >>> measured(nn.Linear(10, 3), lambda model: model(torch.zeros(2, 10)))
    {'parameters': 33, 'macs': 60, 'memory_mb': 0.000132}
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with counter, torch.inference_mode():
        call(model.eval())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2, "memory_mb": parameters * 4 / 1e6}


def switches(config: Any) -> dict[str, str | bool]:
    """The fields of a config that choose between ways, not sizes."""
    return {name: value for name, value in asdict(config).items() if isinstance(value, str | bool)}


def rewritten(rewrites: Iterable[Any]) -> dict[str, str]:
    """What was done to a network after its training, as a fact; none where nothing was.

    >>> rewritten([])
    {}
    """
    names = ", ".join(each.name for each in rewrites)
    return {"rewritten": names} if names else {}


def fact_lines(facts: Mapping[str, Any]) -> str:
    """The facts for a terminal: one a line, then the groups ``switches`` and ``blocks``; None is left out.

    >>> facts = {"macs": 1200, "input": {"rows": 1, "features": 16}, "preset": None}
    >>> print(fact_lines({**facts, "switches": {"bias": True}, "blocks": ["attention"]}))
    macs         1,200
    input        rows 1, features 16
    switches
      bias                 True
    blocks
      attention
    """
    rest = {name: value for name, value in facts.items() if name not in ("blocks", "switches") and value is not None}
    head = [f"{name:<12} {_words(value)}" for name, value in rest.items()]
    chosen = [f"  {name:<20} {value}" for name, value in facts["switches"].items()]
    return "\n".join([*head, "switches", *chosen, "blocks", *(f"  {line}" for line in facts["blocks"])])


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
