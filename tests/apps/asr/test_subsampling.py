from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from apps.asr.subsampling import Subsampling, subsampled_length, zero_padding
from core.errors import InputError

BINS, WIDTH = 9, 5


def front(bins: int = BINS, width: int = WIDTH) -> Subsampling:
    torch.manual_seed(0)
    return Subsampling(bins, width).double().eval()


def positive() -> Subsampling:
    """With nothing negative, so that no ReLU hides a change."""
    model = front()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    return model


def convolve(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """One padded, strided convolution of ``x (C,T,F)``, one number after another; zeros beyond the end."""
    channels, frames, bins = x.shape
    y = torch.zeros(weight.shape[0], frames // 2, bins // 2, dtype=x.dtype)
    for c in range(weight.shape[0]):
        sources = range(channels) if groups == 1 else [c]
        for t in range(frames // 2):
            for f in range(bins // 2):
                total = bias[c].clone()
                for n, source in enumerate(sources):
                    for i in range(3):
                        for j in range(3):
                            if 2 * t + i < frames and 2 * f + j < bins:
                                total += weight[c, n, i, j] * x[source, 2 * t + i, 2 * f + j]
                y[c, t, f] = total
    return y


def reference(model: Subsampling, x: Tensor) -> Tensor:
    """Tokens of one recording ``x (T,F)``."""
    y = convolve(x[None], model.conv1.weight, model.conv1.bias, 1).clamp(min=0)
    z = convolve(y, model.depthwise.weight, model.depthwise.bias, model.width)
    z = torch.einsum("ctf,dc->dtf", z, model.pointwise.weight) + model.pointwise.bias[:, None, None]
    z = z.clamp(min=0)
    rows = []
    for t in range(z.shape[1]):
        flat = torch.cat([z[:, t, f] for f in range(z.shape[2])])
        token = math.sqrt(model.width) * (model.linear.weight @ flat + model.linear.bias)
        centred = token - token.mean()
        rows.append(centred / (centred.square().mean() + 1e-3).sqrt())
    return torch.stack(rows)


class TestLengths:
    def test_published_table(self):
        frames = torch.tensor([16, 97, 100, 101, 103, 998, 1000, 1001, 3001])
        assert subsampled_length(frames).tolist() == [4, 24, 25, 25, 25, 249, 250, 250, 750]

    def test_is_what_comes_out(self):
        model = front(4, 2)
        lengths = subsampled_length(torch.arange(201))
        assert [model(torch.zeros(1, frames, 4).double()).shape[1] for frames in range(201)] == lengths.tolist()

    @pytest.mark.parametrize("bins", [4, 7, 80])
    def test_bins(self, bins):
        assert front(bins).linear.in_features == bins // 2 // 2 * WIDTH


class TestValues:
    @pytest.mark.parametrize("frames", [4, 5, 6, 7, 11])
    @pytest.mark.parametrize("bins", [4, 9])
    def test_loops(self, frames, bins):
        model, x = front(bins), torch.randn(frames, bins, dtype=torch.float64)
        torch.testing.assert_close(model(x[None])[0], reference(model, x), rtol=1e-10, atol=1e-10)

    def test_token_reads_seven_frames(self):
        model, x = positive(), torch.rand(1, 41, BINS, dtype=torch.float64)
        base = model(x)
        for frame in range(41):
            changed = x.clone()
            changed[0, frame] += 1
            moved = (model(changed) != base).any(-1)[0].nonzero().flatten().tolist()
            assert moved == [t for t in range(10) if 4 * t <= frame <= 4 * t + 6]


class TestPadding:
    def test_batch_of_many_is_batches_of_one(self):
        model = front()
        lengths = torch.arange(0, 24)
        x = torch.randn(24, 26, BINS, dtype=torch.float64)
        x[torch.arange(26) >= lengths[:, None]] = math.nan
        many = zero_padding(model(x, lengths), subsampled_length(lengths))
        for row, n in enumerate(lengths.tolist()):
            alone = model(x[row : row + 1, :n])
            torch.testing.assert_close(many[row, : n // 4], alone[0], rtol=1e-10, atol=1e-10)

    def test_gradients_do_not_read_padding(self):
        model = positive()
        lengths = torch.tensor([5, 11])
        x = torch.rand(2, 13, BINS, dtype=torch.float64)
        x[torch.arange(13) >= lengths[:, None]] = math.nan
        x.requires_grad_()
        y = zero_padding(model(x, lengths), subsampled_length(lengths))
        (y * torch.randn_like(y)).sum().backward()
        assert all(bool(p.grad.isfinite().all()) and bool((p.grad != 0).any()) for p in model.parameters())
        assert bool((x.grad[0, 5:] == 0).all())


class TestRefusals:
    def test_too_few_bins(self):
        with pytest.raises(InputError, match="halved twice"):
            Subsampling(3, 8)

    def test_other_bins(self):
        with pytest.raises(InputError, match=r"\(1, 10, 8\), not \(B, T, 9\)"):
            front()(torch.zeros(1, 10, 8, dtype=torch.float64))
