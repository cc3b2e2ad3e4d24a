"""Feat-Mix, Hid-Mix, input mixup: label shares, what is exchanged, and with whom."""

import pytest
import torch

from apps.tabular.prediction.config import MixingConfig, ModelConfig
from apps.tabular.prediction.mixing import draw_mix, feat_mix, hidden_mix, input_mix, kept_share
from apps.tabular.prediction.model import ExcelFormer, FeatureTokenizer
from core.errors import InputError

IMPORTANCE = torch.tensor([4.0, 3.0, 2.0, 1.0])


def test_kept_share_of_forced_masks():
    keep = torch.tensor([[True] * 4, [False] * 4, [True, False, False, True]])
    torch.testing.assert_close(kept_share(keep, IMPORTANCE), torch.tensor([1.0, 0.0, 0.5]))


def test_kept_share_without_any_importance_counts_features():
    assert kept_share(torch.tensor([[True, False, False, False]]), torch.zeros(4)).item() == 0.25


def test_feat_mix_label_follows_the_drawn_mask():
    torch.manual_seed(0)
    mix = feat_mix(500, IMPORTANCE, beta=0.5)
    assert mix.keep.shape == (500, 4, 1)
    torch.testing.assert_close(mix.share, mix.keep[..., 0].float() @ (IMPORTANCE / 10))
    assert sorted(mix.partner.tolist()) == list(range(500))


def test_hidden_mix_label_is_the_drawn_share_and_dimensions_follow_it():
    torch.manual_seed(0)
    mix = hidden_mix(400, 2000, beta=0.5)
    assert mix.keep.shape == (400, 1, 2000)
    # r itself, not the share that was kept: near, never the same.
    kept = mix.keep.float().mean((1, 2))
    assert (kept - mix.share).abs().max() < 0.06
    assert (kept != mix.share).float().mean() > 0.5


def test_feat_mix_keeps_one_minus_r():
    # With beta large r is 1/2; a small importance-free check of the direction needs the two draws side by side.
    torch.manual_seed(3)
    r = torch.distributions.Beta(0.5, 0.5).sample((300,))
    torch.manual_seed(3)
    mix = feat_mix(300, torch.ones(2000), beta=0.5)
    assert (mix.keep.float().mean((1, 2)) - (1 - r)).abs().max() < 0.06
    torch.manual_seed(3)
    assert torch.equal(hidden_mix(300, 7, beta=0.5).share, r)


def test_beta_sets_the_spread():
    torch.manual_seed(0)
    assert hidden_mix(4000, 1, beta=0.1).share.std() > 0.4
    assert hidden_mix(4000, 1, beta=50.0).share.std() < 0.06


def test_feat_mix_on_tokens_is_swapping_raw_features():
    torch.manual_seed(0)
    tokenizer, x = FeatureTokenizer(4, 8), torch.randn(50, 4)
    mix = feat_mix(50, IMPORTANCE, beta=0.5)
    swapped = torch.where(mix.keep[..., 0], x, x[mix.partner])
    assert (swapped != x).any()
    assert torch.equal(mix(tokenizer(x)), tokenizer(swapped))


def test_hidden_mix_exchanges_the_same_dimensions_in_every_token():
    torch.manual_seed(0)
    tokens = torch.arange(2 * 3 * 5.0).reshape(2, 3, 5)
    mix = hidden_mix(2, 5, beta=0.5)
    mixed = mix(tokens)
    for b in range(2):
        for d in range(5):
            source = b if mix.keep[b, 0, d] else mix.partner[b]
            assert torch.equal(mixed[b, :, d], tokens[source, :, d])


def test_input_mix_interpolates_with_one_share_a_batch():
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    mix = input_mix(6, beta=0.5)
    assert len(set(mix.share.tolist())) == 1
    torch.testing.assert_close(mix(x), mix.share[0] * x + (1 - mix.share[0]) * x[mix.partner])


@pytest.mark.parametrize("kind", ["feat", "hidden", "input"])
def test_model_mixes_at_its_site(kind):
    torch.manual_seed(0)
    model = ExcelFormer(4, 2, ModelConfig(width=8, heads=2, layers=2), importance=IMPORTANCE).eval()
    x = torch.randn(20, 4)
    mix = draw_mix(MixingConfig(kind=kind), 20, model.importance, 8)
    by_hand = {"input": lambda: model(mix(x)), "tokens": lambda: model.head(model.stack(mix(model.tokenizer(x))))}
    expected = by_hand[mix.site]()
    assert torch.equal(model(x, mix=mix), expected)
    assert not torch.equal(model(x, mix=mix), model(x))


def test_no_mixing_draws_nothing():
    before = torch.get_rng_state()
    assert draw_mix(MixingConfig(), 20, IMPORTANCE, 8) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_beta_must_be_positive():
    with pytest.raises(InputError, match=r"mixing\.beta"):
        MixingConfig(beta=0.0)
