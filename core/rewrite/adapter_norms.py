"""How large the numbers are on which the cost of adapting attention depends (Hu et al., arXiv 2406.03136, ICLR 2025).

With L tokens the gradient of adapters of the queries can be approximated in almost linear time where

    max|X W_K|,   max|s X A^T B^T|,   max|X W_Q'|      W_Q' = W_Q + s A^T B^T

are small against sqrt(ln L), and under the strong exponential time hypothesis it cannot where they are not. That is
theory: its authors derive no program from it, and nothing here is faster for it. The numbers say how sharp a layer's
attention can be. Biases count as a part of the maps (ours: the paper has none).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.attention import HeadedAttention, Mixer, RelativeAttention
from core.errors import InputError
from core.rewrite.adapters import LoRALinear
from core.rewrite.base import Evidence, blocks_of
from core.sequence import Ragged


def norm_diagnostic(model: nn.Module, evidence: Evidence, *, c: float = 1.0) -> list[dict[str, Any]]:
    """The largest numbers of each attention whose queries have an adapter, on the inputs of the evidence.

    Args:
        model: with adapters.
        evidence: its ``run``.
        c: of the bound c sqrt(ln L); the theory states none.

    Returns:
        for each such attention: ``block``, its path; ``tokens``, L, of the longest sequence; ``bound``; ``keys``,
        ``adapter`` and ``queries``, the three numbers above; ``within``, whether none of them is above the bound.

    Raises:
        InputError: no inputs.
    """
    if evidence.run is None:
        raise InputError("cannot be found without evidence.run", where="the norms of adapters")
    found: dict[str, dict[str, Any]] = {}
    hooks: list[RemovableHandle] = []
    for path, block in blocks_of(model, Mixer).items():  # type: ignore[type-abstract]
        qkv = block.qkv if isinstance(block, HeadedAttention | RelativeAttention) else None
        if isinstance(qkv, LoRALinear) and (not qkv.thirds or "q" in qkv.thirds):
            found[path] = {"block": path, "tokens": 0, "bound": 0.0, "keys": 0.0, "adapter": 0.0, "queries": 0.0}
            hooks.append(block.register_forward_pre_hook(_lengths(found[path]), with_kwargs=True))
            hooks.append(qkv.register_forward_pre_hook(_norms(found[path])))
    try:
        with torch.no_grad():
            evidence.run(model)
    finally:
        for hook in hooks:
            hook.remove()
    for row in found.values():
        row["bound"] = c * math.sqrt(math.log(max(1, row["tokens"])))
        row["within"] = max(row["keys"], row["adapter"], row["queries"]) <= row["bound"]
    return list(found.values())


def _lengths(row: dict[str, Any]) -> Any:
    """What a mixer is given, watched: the length of its longest sequence."""

    def hook(_: nn.Module, given: tuple[Tensor, ...], context: dict[str, Any]) -> None:
        x, offsets = given[0] if given else context["x"], context.get("offsets")
        if isinstance(offsets, Ragged):
            tokens = offsets.max_length
        else:
            tokens = x.shape[-2] if offsets is None else int(offsets.diff().max()) if len(offsets) > 1 else 0
        row["tokens"] = max(row["tokens"], int(tokens))

    return hook


def _norms(row: dict[str, Any]) -> Any:
    """What a map is given, watched: the largest numbers of its results, those for padding left out."""

    def hook(qkv: LoRALinear, given: tuple[Tensor, ...]) -> None:
        rows = given[0].detach().flatten(0, -2)
        rows = rows[rows.any(dim=1)]
        if len(rows) == 0:
            return
        queries, keys, _ = qkv.base(rows).chunk(3, dim=-1)
        change, other = qkv.change(rows, "q"), qkv.change(rows, "k")
        assert change is not None
        numbers = {"keys": keys if other is None else keys + other, "adapter": change, "queries": queries + change}
        for name, value in numbers.items():
            row[name] = max(row[name], float(value.abs().max()))

    return hook
