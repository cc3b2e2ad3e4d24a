"""Kernels against their references: ``python -m benchmarks.kernels --out results/kernels.json --threads 2``.

Attention with dropped probabilities, forward and backward: ``core.attention.softmax_attention`` with
``core.kernels.keep_mask``, against torch's own ``scaled_dot_product_attention`` with the same dropout. The two
alternate in one process; the ratio (torch over ours, above 1 is faster) is taken round by round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.record import provenance, write_json
from benchmarks.common.table import markdown, write_text
from core.attention import softmax_attention

SIZES = ((256, 8, 8, 8), (256, 8, 16, 8), (256, 8, 32, 8), (64, 8, 128, 8), (8, 8, 512, 32))
DROPOUT = 0.3
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The form in use."""
    return softmax_attention(q, k, v, causal=True, dropout=DROPOUT)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=DROPOUT)


def seconds(attention: Attention, qkv: Tensor) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    attention(*qkv.unbind(0)).sum().backward()  # type: ignore[no-untyped-call]
    qkv.grad = None
    return time.perf_counter() - start


def measure(size: tuple[int, int, int, int], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Times in milliseconds and the quartiles of their ratio."""
    qkv = torch.randn(3, *size, dtype=dtype, requires_grad=True)
    for _ in range(3):
        seconds(ours, qkv), seconds(reference, qkv)
    times = np.array([(seconds(ours, qkv), seconds(reference, qkv)) for _ in range(rounds)])
    low, middle, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
    names = ("batch", "heads", "tokens", "head_width")
    return {
        **dict(zip(names, size, strict=True)),
        "dtype": str(dtype).removeprefix("torch."),
        "ours_ms": 1e3 * float(np.median(times[:, 0])),
        "torch_ms": 1e3 * float(np.median(times[:, 1])),
        "ratio": float(middle),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size in float32 and bfloat16."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/kernels.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [measure(size, dtype, options.rounds) for dtype in (torch.float32, torch.bfloat16) for size in SIZES]
    write_json(options.out, {"provenance": provenance(threads=options.threads, packages=("torch",)), "dropout": rows})
    header = ("batch", "heads", "tokens", "head width", "type", "ours, ms", "torch, ms", "torch / ours [quartiles]")
    lines = [
        (*(str(row[key]) for key in ("batch", "heads", "tokens", "head_width", "dtype")),
         f"{row['ours_ms']:.1f}", f"{row['torch_ms']:.1f}",
         f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]")
        for row in rows
    ]  # fmt: skip
    write_text(
        options.out.with_suffix(".md"), "## Attention dropout, forward and backward\n\n" + markdown(header, lines)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
