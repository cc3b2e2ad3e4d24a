from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from apps.asr import frontend
from core.testing.tolerances import draw


def tensors(rows: int, bins: int, width: int = 5, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    shapes = [(2, rows, bins, 10), (width, 10), (width, 1, 3, 3), (width,), (width, width), (width,)]
    return [draw(*shape, dtype=dtype, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]


def written_out(taps, dense, depthwise, depthwise_bias, pointwise, pointwise_bias):
    y = F.relu(F.linear(taps, dense)).permute(0, 3, 1, 2)
    u = F.conv2d(y, depthwise, depthwise_bias, stride=2, groups=len(dense)).permute(0, 2, 3, 1)
    return F.relu(F.linear(u, pointwise, pointwise_bias))


@pytest.mark.parametrize("rows", [3, 4, 11, 12])
@pytest.mark.parametrize("piece", [1, 2000, 1 << 21])
def test_pieces_give_what_the_layers_give_gradients_included(rows, piece, monkeypatch):
    monkeypatch.setattr(frontend, "_PIECE", piece)
    inputs = tensors(rows, 7)
    results = []
    for form in (frontend.separable_front, written_out):
        z = form(*inputs)
        results.append((z, *torch.autograd.grad((z * draw(*z.shape, seed=9)).sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_autocast_computes_in_its_dtype_and_is_near(monkeypatch):
    monkeypatch.setattr(frontend, "_PIECE", 2000)
    inputs = tensors(21, 9, dtype=torch.float32)
    wanted = torch.autograd.grad(written_out(*inputs).square().sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        z = frontend.separable_front(*inputs)
    assert z.dtype == torch.bfloat16
    for ours, theirs in zip(torch.autograd.grad(z.float().square().sum(), inputs), wanted, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.03
