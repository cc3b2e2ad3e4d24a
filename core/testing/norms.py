"""The contract of norms (``core.norm.Norm``) as checks: see :data:`NORM_CHECKS`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.testing.cases import WIDTH, NormCase
from core.testing.checks import LENGTHS, agree, compiles, exports, gradients
from core.testing.tolerances import TOLERANCES, assert_close, draw, draw_mask


def matches_oracle(case: NormCase) -> None:
    """Results and gradients equal the oracle's in every dtype, which the result keeps."""
    for n, dtype in product(LENGTHS, TOLERANCES):
        norm, x = case.make(dtype), draw(2, n, WIDTH, dtype=dtype)
        agree(norm, norm, partial(case.oracle, norm), x, f"{case}, {n} tokens")
        assert norm(x).dtype == dtype


def keeps_float32_statistics(case: NormCase) -> None:
    """A bfloat16 or float16 input is rounded once, at the end: within one unit in the last place of the exact result.

    The values lie far from zero, where statistics summed in low precision would be useless; the parameters are float32.
    """
    norm = case.make(torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        x = (30 + draw(50, WIDTH)).to(dtype)
        y, wanted = norm(x), case.oracle(norm, x.double())
        assert y.dtype == dtype
        error = (y.double() - wanted).abs()
        assert bool((error <= torch.finfo(dtype).eps * wanted.abs() + 1e-4).all()), f"{case}: {error.max()} in {dtype}"


def ignores_padding(case: NormCase) -> None:
    """Outside training a token's result depends on no other token, nor on the mask.

    Of a norm that goes by sequences it depends on the real tokens of its own sequence, and on no other.
    """
    norm, x = case.make(), draw(2, 7, WIDTH)
    mask = draw_mask(2, 7)
    changed = x.masked_fill(~mask[..., None], float("nan"))
    y = norm(changed, mask)
    if norm.by_sequence:
        for sequence, real, result in zip(x, mask, y, strict=True):
            assert_close(result[real], norm(sequence[real][None])[0], torch.float64, f"{case}, a sequence alone")
            assert not bool(result[~real].any()), "padding is not zero"
        return
    wanted = norm(x)
    assert torch.equal(y[mask], wanted[mask])
    assert torch.equal(norm(x[mask]), wanted[mask]), "packed rows differ"


def folds_exactly(case: NormCase) -> None:
    """``fold_into`` keeps the function, to float64 rounding, changes no original, and folds twice to the same."""
    norm, x = case.make(), draw(20, WIDTH)
    before = copy.deepcopy(norm.state_dict())
    for bias in (True, False):
        linear = nn.Linear(WIDTH, 4, bias=bias, dtype=torch.float64)
        weight = linear.weight.detach().clone()
        bare, folded = norm.fold_into(linear)
        assert_close(folded(bare(x)), linear(norm(x)), torch.float64, f"{case}, folded")
        assert list(bare.parameters()) == [], "the folded norm keeps parameters"
        assert torch.equal(linear.weight, weight)
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
        again, twice = bare.fold_into(folded)
        assert torch.equal(twice(again(x)), folded(bare(x)))
    with pytest.raises(InputError, match="fold"):
        norm.fold_into(nn.Linear(WIDTH + 1, 4))


def folds_with_one_rounding(case: NormCase) -> None:
    """A float32 fold is the float64 fold, cast: bit-equal."""
    norm, linear = case.make(torch.float32), nn.Linear(WIDTH, 4)
    _, folded = norm.fold_into(linear)
    _, exact = copy.deepcopy(norm).double().fold_into(copy.deepcopy(linear).double())
    assert torch.equal(folded.weight, exact.weight.float())
    assert torch.equal(folded.bias, exact.bias.float())


def survives_constant_tokens(case: NormCase) -> None:
    """Tokens of zeros, or of one number, give finite results and gradients: eps is inside the root."""
    norm = case.make()
    for value in (0.0, 3.0):
        x = torch.full((2, WIDTH), value, dtype=torch.float64, requires_grad=True)
        y = norm(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert bool(y.isfinite().all()), f"{case} at {value}"
        assert bool(grad.isfinite().all()), f"{case} at {value}: the gradient"


def has_true_gradients(case: NormCase) -> None:
    """Numeric and analytic gradients agree."""
    norm = case.make()
    gradients(norm, norm, draw(2, 3, WIDTH))


def refuses_nonsense(case: NormCase) -> None:
    """No width, or an eps that cannot keep the root from zero."""
    for width, eps in ((0, 1e-5), (4, 0.0), (4, -1.0), (4, float("nan"))):
        with pytest.raises(InputError, match="norm"):
            case.block(width, eps=eps)


def compiles_and_exports(case: NormCase) -> None:
    """``torch.compile(backend="aot_eager")`` as one graph, and ``torch.export`` with free sizes."""
    compiles(case.make(), draw(2, 7, WIDTH), {})
    exports(case.make(), (draw(2, 7, WIDTH), {}), (draw(3, 5, WIDTH), {}))


NORM_CHECKS: dict[str, Callable[[NormCase], None]] = {
    check.__name__: check
    for check in (
        matches_oracle,
        keeps_float32_statistics,
        ignores_padding,
        folds_exactly,
        folds_with_one_rounding,
        survives_constant_tokens,
        has_true_gradients,
        refuses_nonsense,
        compiles_and_exports,
    )
}
