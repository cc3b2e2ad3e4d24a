from collections.abc import Callable

import pytest
import torch
from torch import nn

from core.norm import NORMS, Identity, LayerNorm, RMSNorm
from core.testing.cases import NormCase, norm_cases
from core.testing.norms import NORM_CHECKS
from core.testing.oracles import NORM_ORACLES


@pytest.mark.parametrize("check", NORM_CHECKS.values(), ids=list(NORM_CHECKS))
@pytest.mark.parametrize("case", norm_cases(), ids=str)
def test_contract(case: NormCase, check: Callable[[NormCase], None]) -> None:
    check(case)


def test_every_norm_has_an_oracle() -> None:
    assert set(NORM_ORACLES) == set(NORMS)


def test_starts_as_the_plain_norm() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    torch.testing.assert_close(LayerNorm(4)(x), (x - 3.0) / (3.5 + 1e-5) ** 0.5)
    torch.testing.assert_close(RMSNorm(4)(x), x / (12.5 + 1e-5) ** 0.5)


@pytest.mark.parametrize(("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
def test_loads_the_state_of_torch(ours: type, theirs: type) -> None:
    mine, other = ours(6, eps=1e-3), theirs(6, eps=1e-3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    mine.load_state_dict(other.state_dict())
    x = torch.linspace(-2, 5, 18).view(3, 6)
    torch.testing.assert_close(mine(x), other(x))


def test_rmsnorm_is_layernorm_on_centred_tokens() -> None:
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centred = x - x.mean(-1, keepdim=True)
    rms, layer = RMSNorm(8, eps=0.1, affine=False), LayerNorm(8, eps=0.1, affine=False)
    torch.testing.assert_close(rms(centred), layer(x), rtol=1e-12, atol=1e-12)


def test_a_layernorm_gives_its_shift_to_a_linear_without_bias() -> None:
    norm = LayerNorm(3)
    linear = nn.Linear(3, 2, bias=False)
    assert norm.fold_into(linear)[1].bias is not None
    assert RMSNorm(3).fold_into(linear)[1].bias is None
    assert Identity(3).fold_into(linear)[1].bias is None


def test_folding_leaves_the_random_state_and_the_mode() -> None:
    norm, linear = LayerNorm(3).eval(), nn.Linear(3, 2).eval()
    before = torch.get_rng_state()
    bare, folded = norm.fold_into(linear)
    assert torch.equal(torch.get_rng_state(), before)
    assert not bare.training
    assert not folded.training


def test_autocast_keeps_the_dtype_of_activations() -> None:
    x = torch.linspace(-1, 1, 8).view(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        for norm in (LayerNorm(4), RMSNorm(4)):
            assert norm(x).dtype == torch.float32
            assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_a_layernorm_without_bias_and_without_weights_is_torchs() -> None:
    x, theirs = torch.linspace(-2, 5, 18).view(3, 6), nn.LayerNorm(6, eps=1e-3, bias=False)
    mine = LayerNorm(6, eps=1e-3, bias=False)
    with torch.no_grad():
        theirs.weight.copy_(torch.linspace(0.5, 2, 6))
    mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mine(x), theirs(x))
    bare = LayerNorm(6, eps=1e-3, affine=False)
    assert list(bare.parameters()) == []
    torch.testing.assert_close(bare(x), nn.functional.layer_norm(x, (6,), eps=1e-3))
    many = torch.linspace(-2, 5, 20000, dtype=torch.float64).view(-1, 4).sin().requires_grad_()
    for each in (LayerNorm(4, affine=False), LayerNorm(4, bias=False).double()):
        weight = None if each.weight is None else torch.ones(4, dtype=torch.float64)
        wanted = nn.functional.layer_norm(many, (4,), weight)
        torch.testing.assert_close(each(many), wanted)
        [grad] = torch.autograd.grad(each(many).square().sum() + each(many)[0, 0], many)
        [reference] = torch.autograd.grad(wanted.square().sum() + wanted[0, 0], many)
        torch.testing.assert_close(grad, reference)


@pytest.mark.parametrize("name", NORMS)
def test_bfloat16_is_near_float32(name: str) -> None:
    """For numbers of unit scale: within 0.02, and the rounding of the result itself."""
    norm, x = NORMS[name](64).eval(), torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    y, wanted = norm(x), norm(x.float())
    assert y.dtype == torch.bfloat16
    assert float((y.float() - wanted).abs().max().detach()) < 0.02
