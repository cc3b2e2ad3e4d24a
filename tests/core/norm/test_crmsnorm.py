"""CRMS norm of a centred token without its last channel is the layer norm of the whole; models: core.rewrite."""

import torch
from torch import nn

from core.norm import CRMSNorm, LayerNorm, RMSNorm
from core.norm.base import fold_affine
from core.testing.tolerances import draw

WIDTH = 9
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def test_it_is_the_layer_norm_of_the_whole_token_at_any_eps() -> None:
    x = draw(20, WIDTH) * 3
    whole = x - x.mean(-1, keepdim=True)
    for eps in (1e-12, 1e-5, 2.0):
        small = CRMSNorm(WIDTH - 1, eps=eps, affine=False)(whole[:, :-1])
        torch.testing.assert_close(small, LayerNorm(WIDTH, eps=eps, affine=False)(x)[:, :-1], **EXACT)
        torch.testing.assert_close(small, RMSNorm(WIDTH, eps=eps, affine=False)(whole)[:, :-1], **EXACT)
    uncentred = RMSNorm(WIDTH, eps=1e-12, affine=False)(x) - LayerNorm(WIDTH, eps=1e-12, affine=False)(x)
    assert float(uncentred.abs().max()) > 1e-2


def test_the_reader_of_a_compressed_token_reads_the_whole_one() -> None:
    linear, x = nn.Linear(WIDTH, 3, dtype=torch.float64), draw(5, WIDTH)
    whole = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        read = whole[:, :-1] @ (linear.weight[:, :-1] - linear.weight[:, -1:]).T + linear.bias
        torch.testing.assert_close(read, linear(whole), **EXACT)
        ones = torch.ones(WIDTH, dtype=torch.float64)
        torch.testing.assert_close(fold_affine(linear, ones, None)(x), linear(x), **EXACT)
