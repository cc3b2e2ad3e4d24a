"""How close two results must be, by dtype, and how tests compare and draw tensors.

The numbers are for the sizes of the suites (widths around 10, at most 129 tokens, values of order one), where the order
of summation is all that differs. bfloat16 has 8 bits of precision (a unit in the last place is 2^-7 of the value), and
intermediate results are rounded to it as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """``|actual - expected| <= absolute + relative * |expected|``."""

    relative: float
    absolute: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-10, 1e-11),
    torch.float32: Tolerance(1e-4, 2e-5),
    torch.bfloat16: Tolerance(5e-2, 1e-1),
}


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, note: str) -> None:
    """Compare values of a computation done in ``dtype``; shapes must agree and nothing may be NaN.

    A gradient adds up many terms, so that the absolute tolerance grows with the largest expected number.

    >>> assert_close(torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]), torch.float32, "nearly one")
    """
    tolerance = TOLERANCES[dtype]
    expected = expected.detach().double()
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.detach().double(),
        expected,
        rtol=tolerance.relative,
        atol=tolerance.absolute * scale,
        msg=lambda text: f"{note} in {dtype}: {text}",
    )


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Standard normal numbers that depend on the arguments alone, the same ones in every dtype up to rounding.

    >>> torch.equal(draw(3, seed=1), draw(3, seed=1))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def draw_mask(*shape: int, share: float = 0.6, seed: int = 0) -> Tensor:
    """Booleans, each True with probability ``share``, that depend on the arguments alone.

    >>> draw_mask(2, 3, share=1.0).all().item()
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator) < share
