"""Kernels against their references: ``python -m benchmarks.kernels --out results/kernels.json --threads 2``.

Forward and backward, of attention with dropped probabilities: ``core.attention.softmax_attention`` with
``core.kernels.keep_mask``, against torch's own ``scaled_dot_product_attention`` with the same dropout; and of
depth-wise convolution over time: ``core.kernels.depthwise_conv1d`` against ``conv1d`` between two transposes. The two
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
from core.kernels import depthwise_conv1d, depthwise_conv1d_reference

SIZES = ((256, 8, 8, 8), (256, 8, 16, 8), (256, 8, 32, 8), (64, 8, 128, 8), (8, 8, 512, 32))
DROPOUT = 0.3
CONVOLUTIONS = ((1, 250, 288), (8, 250, 288), (1, 750, 288), (8, 750, 288))
TAPS = 31
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
    names = ("batch", "heads", "tokens", "head_width")
    return {
        **dict(zip(names, size, strict=True)),
        "dtype": str(dtype).removeprefix("torch."),
        **compared(times),
    }


def compared(times: np.ndarray) -> dict[str, float]:
    """Medians of ``times (rounds,2)``, ours and torch's, and the quartiles of their ratio."""
    low, middle, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
    ours_ms, torch_ms = 1e3 * np.median(times, axis=0)
    return {
        "ours_ms": float(ours_ms),
        "torch_ms": float(torch_ms),
        "ratio": float(middle),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def measure_depthwise(size: tuple[int, int, int], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """The same for the depth-wise convolution, with the gradients of x, weight and bias."""
    x, gradient = torch.randn(2, *size, dtype=dtype).unbind(0)
    weight, bias = torch.randn(size[2], 1, TAPS, dtype=dtype), torch.randn(size[2], dtype=dtype)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def run(form: Callable[..., Tensor]) -> float:
        start = time.perf_counter()
        torch.autograd.grad(form(*inputs, left=TAPS // 2, right=TAPS // 2), inputs, gradient)
        return time.perf_counter() - start

    forms = (depthwise_conv1d, depthwise_conv1d_reference)
    times = np.array([[run(form) for form in forms] for _ in range(3 + rounds)])[3:]
    names = ("batch", "frames", "channels")
    return {
        **dict(zip(names, size, strict=True)),
        "dtype": str(dtype).removeprefix("torch."),
        **compared(times),
    }


def as_table(rows: Sequence[dict[str, Any]], sizes: Sequence[str]) -> str:
    """The measurements as Markdown."""
    names = [name.replace("_", " ") for name in sizes]
    header = (*names, "type", "ours, ms", "torch, ms", "torch / ours [quartiles]")
    lines = [
        (*(str(row[key]) for key in (*sizes, "dtype")),
         f"{row['ours_ms']:.1f}", f"{row['torch_ms']:.1f}",
         f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]")
        for row in rows
    ]  # fmt: skip
    return markdown(header, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size in float32 and bfloat16."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/kernels.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16)
    rows = [measure(size, dtype, options.rounds) for dtype in dtypes for size in SIZES]
    taps = [measure_depthwise(size, dtype, options.rounds) for dtype in dtypes for size in CONVOLUTIONS]
    facts = provenance(threads=options.threads, packages=("torch",))
    write_json(options.out, {"provenance": facts, "dropout": rows, "depthwise": taps})
    text = (
        f"## Attention dropout, forward and backward\n\n{as_table(rows, ('batch', 'heads', 'tokens', 'head_width'))}\n"
        f"## Depth-wise convolution, {TAPS} taps, forward and backward\n\n"
        f"{as_table(taps, ('batch', 'frames', 'channels'))}"
    )
    write_text(options.out.with_suffix(".md"), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
