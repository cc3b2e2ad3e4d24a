"""Every way in which tokens are divided by their root mean square gives the same."""

import pytest
import torch
from torch import Tensor

from core.norm import CRMSNorm, LayerNorm, RMSNorm
from core.norm import root as module
from core.norm.root import over_root
from core.testing.tolerances import draw

EPS = 0.01


def plain(x: Tensor, hidden: bool) -> Tensor:
    whole = torch.cat([x, -x.sum(-1, keepdim=True)], dim=-1) if hidden else x
    return x / (whole.square().mean(-1, keepdim=True) + EPS).sqrt()


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("piece", [16, 1 << 18])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8), (4, 1), (0, 8), (2, 0, 8)])
def test_with_and_without_gradients(
    shape: tuple[int, ...], piece: int, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    x = 3 * draw(*shape)
    wanted = plain(x, hidden)
    torch.testing.assert_close(over_root(x, EPS, hidden=hidden), wanted, rtol=1e-13, atol=1e-14)
    learned = x.clone().requires_grad_()
    y, reference = over_root(learned, EPS, hidden=hidden), x.clone().requires_grad_()
    torch.testing.assert_close(y, wanted, rtol=1e-13, atol=1e-14)
    for result, tensor in ((y, learned), (plain(reference, hidden), reference)):
        (result * draw(*shape, seed=1)).sum().backward()
        assert tensor.grad is not None
    torch.testing.assert_close(learned.grad, reference.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [False, True])
def test_gradients_and_gradients_of_gradients(hidden: bool) -> None:
    x = draw(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: over_root(x, EPS, hidden=hidden), (x,))
    assert torch.autograd.gradgradcheck(lambda x: over_root(x, EPS, hidden=hidden), (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden", [False, True])
def test_sixteen_bits_in_pieces_are_float32_rounded_once(
    dtype: torch.dtype, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (100 * draw(7, 3, 8)).to(dtype)
    wanted = plain(x.float(), hidden).to(dtype)
    for piece in (1, 40, 64, 1 << 18):
        monkeypatch.setattr(module, "_PIECE", piece)
        for centred in (False, True):
            torch.testing.assert_close(over_root(x, EPS, hidden=hidden, centred=centred), wanted, rtol=0, atol=0)
    learned = x.clone().requires_grad_()
    torch.testing.assert_close(over_root(learned, EPS, hidden=hidden), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_may_lie_in_memory_in_any_way(dtype: torch.dtype) -> None:
    x = draw(3, 4, 6, dtype=dtype)
    for given in (x.transpose(0, 2), x[..., 1:], x[0].T, x[:1].expand(5, 4, 6)):
        wanted = plain(given.float(), False).to(dtype)
        torch.testing.assert_close(over_root(given, EPS), wanted)
        learned = given.detach().requires_grad_()
        reference = given.detach().contiguous().requires_grad_()
        for tensor in (learned, reference):
            over_root(tensor, EPS).square().sum().backward()
        torch.testing.assert_close(learned.grad, reference.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_said_to_be_centred_may_not_be(dtype: torch.dtype) -> None:
    norm = RMSNorm(64, affine=False)
    norm.centred = True
    x = draw(20, 64, dtype=torch.float32)
    unit = torch.finfo(dtype).eps
    for shift in (0.0, 1e-4, 0.1, 5.0):
        given = (x - x.mean(-1, keepdim=True) + shift).to(dtype)
        wanted = RMSNorm(64, affine=False)(given.float())
        assert float((norm(given).float() - wanted).abs().max()) < 3 * unit
        layer = LayerNorm(64, affine=False)(given)
        assert (shift < 0.01) == torch.equal(layer, norm(given))


def test_parameters_are_learned_and_a_row_of_zeros_is_none() -> None:
    for norm in (RMSNorm(4), CRMSNorm(4)):
        x = torch.zeros(2, 4, requires_grad=True)
        y = norm(x)
        y.sum().backward()
        assert not bool(y.any())
        assert x.grad is not None
        assert norm.weight is not None
        assert norm.weight.grad is not None
        torch.testing.assert_close(x.grad, torch.full((2, 4), 1e-5**-0.5))
