"""Multiply-adds of a forward pass by one counter for every network: torch's, with what it leaves out added.

``FlopCounterMode`` sees every operation that reaches the dispatcher, whatever module it came from, so that relative
attention written as matrix products, convolutions and fused attention are counted alike. Out of the box it does not
know the fused attention of the processor, and would give whoever uses that one its attention for nothing. Elementwise
work, norms and softmax are not counted for anybody. A multiply-add is two of its floating-point operations.

Backward passes are not counted: torch's formula for the weight gradient of a grouped convolution leaves out the groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _fused_attention(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


#: Operations torch has no formula for. Shapes come in place of tensors.
FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention}


def multiply_adds(call: Callable[[], object]) -> int:
    """Multiply-adds of one ``call``, run without gradients. Call it once before, where something is cached.

    >>> a, b = torch.ones(3, 5), torch.ones(5, 7)
    >>> multiply_adds(lambda: a @ b)
    105
    """
    return sum(by_operation(call).values())


def by_operation(call: Callable[[], object]) -> dict[str, int]:
    """:func:`multiply_adds` split by operation, for example ``aten.bmm``."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        call()
    counts = counter.get_flop_counts().get("Global", {})
    return {str(name): flops // 2 for name, flops in counts.items()}
