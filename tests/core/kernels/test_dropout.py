from __future__ import annotations

import math

import pytest
import torch

from core.attention import softmax_attention
from core.errors import InputError
from core.kernels import Dropout, dropout, keep_mask, keep_mask_reference

CPU = torch.device("cpu")


@pytest.mark.parametrize("form", [keep_mask, keep_mask_reference])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_the_share_kept_and_the_scale_make_an_unbiased_mask(form, p):
    torch.manual_seed(0)
    count = 400_000
    mask, scale = form((count,), p, CPU)
    share = 1 / scale
    assert abs(share - (1 - p)) <= 1 / 65536
    # four standard deviations of a binomial share
    assert abs(float(mask.double().mean()) - share) <= 4 * math.sqrt(share * (1 - share) / count) + 1e-12


def test_neighbours_and_places_of_a_word_are_independent():
    torch.manual_seed(1)
    mask = keep_mask((100_000, 4), 0.3, CPU)[0].double() - 0.7
    covariance = mask.T @ mask / len(mask)
    assert torch.allclose(covariance, 0.21 * torch.eye(4, dtype=torch.float64), atol=0.004)
    flat = mask.flatten()
    assert all(abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.003 for lag in (1, 2, 3, 4, 5, 8))


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (5, 7), (2, 3, 5)])
def test_odd_sizes(shape):
    assert keep_mask(shape, 0.5, CPU)[0].shape == torch.Size(shape)


def test_the_seed_decides():
    torch.manual_seed(7)
    one = keep_mask((1000,), 0.5, CPU)[0]
    torch.manual_seed(7)
    assert torch.equal(one, keep_mask((1000,), 0.5, CPU)[0])
    assert not torch.equal(one, keep_mask((1000,), 0.5, CPU)[0])


@pytest.mark.parametrize("p", [1.0, -0.1, 0.999999])
def test_a_probability_that_keeps_nothing_is_refused(p):
    with pytest.raises(InputError, match="outside"):
        keep_mask((4,), p, CPU)


@pytest.mark.parametrize("masks", ["none", "causal", "keys", "pairs", "all"])
def test_attention_with_a_known_mask_equals_the_formula_gradients_included(masks, monkeypatch):
    """The oracle is the definition in float64 with the very mask that was drawn."""
    torch.manual_seed(0)
    batch, heads, n, d = 2, 3, 7, 4
    q, k, v = (torch.randn(batch, heads, n, d, dtype=torch.float64, requires_grad=True) for _ in range(3))
    key_mask = torch.rand(batch, n) > 0.3 if masks in ("keys", "all") else None
    if key_mask is not None:
        key_mask[1] = False
    pair_mask = torch.rand(n, n) > 0.3 if masks in ("pairs", "all") else None
    causal = masks in ("causal", "all")
    keep, scale = keep_mask((batch, heads, n, n), 0.4, CPU)
    monkeypatch.setattr("core.attention.softmax.keep_mask", lambda shape, *_: (keep.view(shape), scale))
    y = softmax_attention(q, k, v, key_mask=key_mask, pair_mask=pair_mask, causal=causal, dropout=0.4)
    gradients = torch.autograd.grad(y.square().sum(), (q, k, v))
    allowed = torch.ones(batch, heads, n, n, dtype=torch.bool)
    if key_mask is not None:
        allowed &= key_mask[:, None, None, :]
    if pair_mask is not None:
        allowed &= pair_mask
    if causal:
        allowed = allowed.tril()
    powers = torch.where(allowed, torch.exp(q @ k.transpose(-1, -2) / math.sqrt(d)), 0.0)
    weights = powers / powers.sum(-1, keepdim=True).clamp_min(1e-300)
    expected = (weights * keep * scale) @ v
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.square().sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_mean_over_masks_is_attention_without_dropout():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 5, 4) for _ in range(3))
    plain = softmax_attention(q, k, v, causal=True)
    mean = torch.stack([softmax_attention(q, k, v, causal=True, dropout=0.3) for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, plain, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dropout_scales_what_it_keeps_and_so_its_gradient(dtype):
    torch.manual_seed(0)
    x = torch.randn(64, 333, dtype=dtype, requires_grad=True)
    y = dropout(x, 0.25)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    kept = gradient != 0
    assert abs(float(kept.double().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / x.numel())
    torch.testing.assert_close(gradient, kept * torch.tensor(4 / 3, dtype=dtype))
    assert y.dtype == dtype
    assert torch.equal(y, x * gradient)


def test_the_module_drops_in_training_only_by_the_seed_and_refuses_what_is_no_probability():
    module, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(7)
    y = module(x)
    torch.manual_seed(7)
    assert torch.equal(y, module(x))
    assert set(y.tolist()) == {0.0, 2.0}
    assert module.eval()(x) is x
    assert Dropout(0.0)(x) is x
    with pytest.raises(InputError, match="outside"):
        Dropout(1.0)
