"""Mixing by weights that are the same for all data: identity, pooling, random, NormLin."""

import pytest
import torch
from torch import Tensor

from core.attention import MIXERS, IdentityMixer, NormLin, Pooling, RandomMixing
from core.errors import InputError
from core.layout import Entry, build
from core.optim import route
from core.testing.tolerances import draw, draw_mask


def test_pooling_of_a_constant_is_exactly_zero() -> None:
    x = draw(2, 1, 6, dtype=torch.float32).expand(2, 9, 6)
    for pool in (1, 3, 7, 21):
        assert not bool(Pooling(6, pool=pool)(x).any())
        assert not bool(Pooling(6, pool=pool)(x, mask=draw_mask(2, 9)).any())


def test_pooling_is_that_of_torch() -> None:
    x = draw(2, 9, 6)
    mean = torch.nn.functional.avg_pool1d(x.mT, 3, stride=1, padding=1, count_include_pad=False).mT
    torch.testing.assert_close(Pooling(6)(x), mean - x, rtol=1e-12, atol=1e-12)


def test_pooling_is_linear_and_shifts_with_its_input() -> None:
    x, y, mixer = draw(1, 12, 4), draw(1, 12, 4, seed=1), Pooling(4, pool=5)
    torch.testing.assert_close(mixer(2 * x - 3 * y), 2 * mixer(x) - 3 * mixer(y), rtol=1e-12, atol=1e-12)
    inside = slice(4, 8)
    torch.testing.assert_close(mixer(x.roll(1, 1))[:, inside], mixer(x).roll(1, 1)[:, inside], rtol=1e-12, atol=1e-12)


def test_random_rows_add_up_to_one_and_are_frozen() -> None:
    mixer, ones = RandomMixing(3, tokens=7).double(), torch.ones(2, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(mixer(ones), ones, rtol=1e-12, atol=1e-12)
    assert list(mixer.parameters()) == []
    assert list(mixer.state_dict()) == ["logits"]
    assert float(mixer.logits.min()) >= 0
    assert float(mixer.logits.max()) < 1
    other = RandomMixing(3, tokens=7).double()
    assert not torch.equal(other.logits, mixer.logits)
    other.load_state_dict(mixer.state_dict())
    x = draw(2, 7, 3)
    assert torch.equal(other(x), mixer(x))


def wide(tokens: int = 7, **options: bool) -> NormLin:
    mixer = NormLin(3, tokens, **options).double()
    with torch.no_grad():
        mixer.weight.copy_(2 * draw(tokens, tokens, seed=3))
    return mixer


def test_rows_of_normlin_are_positive_and_add_up_to_one() -> None:
    rows = wide().rows()
    assert bool((rows > 0).all())
    torch.testing.assert_close(rows.sum(-1), torch.ones(7, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_masks_and_causality_renormalise() -> None:
    mask, pairs = draw_mask(2, 7), draw_mask(7, 7)
    pairs.fill_diagonal_(True)
    rows = wide(causal=True).rows(mask, pairs)
    allowed = mask[:, None, :] & pairs & torch.ones(7, 7, dtype=torch.bool).tril()
    assert rows.shape == (2, 7, 7)
    assert torch.equal(rows > 0, allowed)
    wanted = allowed.any(-1).double()
    torch.testing.assert_close(rows.sum(-1), wanted, rtol=1e-12, atol=1e-12)
    full = wide().rows()
    picked = full[6, allowed[0, 6]] / full[6, allowed[0, 6]].sum()
    torch.testing.assert_close(rows[0, 6, allowed[0, 6]], picked, rtol=1e-12, atol=1e-12)


def test_normlin_keeps_what_is_constant_over_tokens() -> None:
    mixer, x = wide(), draw(2, 1, 3).expand(2, 7, 3)
    torch.testing.assert_close(mixer(x), mixer.out(mixer.value(x)), rtol=1e-12, atol=1e-12)


def test_a_large_multiple_of_the_identity_mixes_nothing() -> None:
    mixer, x = wide(), draw(2, 7, 3)
    with torch.no_grad():
        mixer.weight.copy_(1e3 * (2 * torch.eye(7) - 1))
    torch.testing.assert_close(mixer(x), mixer.out(mixer.value(x)), rtol=1e-12, atol=1e-12)


def test_start_and_parameters_of_normlin() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = NormLin(16, tokens=100)
    weight = mixer.weight.detach()
    noise = weight - torch.eye(100)
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(noise.diagonal().mean())) < 0.4
    assert sum(p.numel() for p in mixer.parameters()) == 100**2 + 2 * 16**2 + 2 * 16
    assert {routed.name: routed.role for routed in route(mixer).entries}["weight"] == "matrix"


@pytest.mark.parametrize("name", ["normlin", "random"])
def test_another_number_of_tokens_is_refused(name: str) -> None:
    mixer = MIXERS[name](4, tokens=5)
    for n in (4, 6):
        with pytest.raises(InputError, match=f"{n} tokens; it was made for 5"):
            mixer(torch.zeros(1, n, 4))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Pooling(4, pool=2), "must be odd, not 2"),
        (lambda: NormLin(4, 3, dropout=1.0), "dropout"),
        (lambda: NormLin(4, -1), "-1 tokens"),
    ],
)
def test_refusals(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=said):
        make()


def test_a_stack_of_identity_mixers_mixes_nothing() -> None:
    entry = Entry("feedforward", "mlp", {"hidden": 12})
    mixed = build((Entry("mixer", "identity", placement="none"), entry), width=8).double()
    alone = build((entry,), width=8).double()
    alone.sublayers[0].load_state_dict(mixed.sublayers[1].state_dict())
    x = draw(2, 5, 8)
    torch.testing.assert_close(mixed(x), alone(2 * x), rtol=1e-12, atol=1e-12)  # x + x, then the feed-forward


def test_identity_reads_itself_or_nothing() -> None:
    x, pairs = draw(2, 5, 8), draw_mask(2, 5, 5)
    y: Tensor = IdentityMixer(8)(x, pair_mask=pairs)
    assert torch.equal(y, x * pairs.diagonal(dim1=1, dim2=2)[..., None])
