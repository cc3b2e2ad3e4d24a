from __future__ import annotations

import math

import pytest
import torch

from apps.asr.augment import AugmentConfig, random_speed, spec_augment, speed_perturb
from core.errors import InputError

ONLY_TIME = AugmentConfig(frequency_masks=0, time_masks=1, time_share=0.05)
ONLY_FREQUENCY = AugmentConfig(frequency_masks=1, time_masks=0)


def draw(config: AugmentConfig, lengths: torch.Tensor, frames: int, bins: int = 80, seed: int = 0) -> torch.Tensor:
    """Where ones became zero, (B,T,F)."""
    torch.manual_seed(seed)
    features = torch.ones(len(lengths), frames, bins)
    hidden = spec_augment(features, lengths, config)
    assert bool(((hidden == 0) | (hidden == 1)).all())
    assert bool((features == 1).all()), "the input must stay as it was"
    return hidden == 0


def test_never_past_the_valid_length() -> None:
    lengths = torch.randint(0, 300, (500,), generator=torch.Generator().manual_seed(1))
    lengths[:3] = torch.tensor([0, 1, 300])
    config = AugmentConfig(frequency_masks=0, time_masks=10, time_share=1.0)
    hidden = draw(config, lengths, 300)[..., 0]
    beyond = torch.arange(300) >= lengths[:, None]
    assert not (hidden & beyond).any()
    near_end = lengths[lengths > 50] - 2
    assert hidden[lengths > 50].gather(1, near_end[:, None]).any(), "masks must be able to reach the last but one"


def test_time_widths_follow_the_definition() -> None:
    # of 200 frames the width is floor(10 u): 0 … 9 with equal chance
    count = 20_000
    hidden = draw(ONLY_TIME, torch.full((count,), 200), 200, bins=1)[..., 0]
    widths = hidden.sum(dim=1)
    share = torch.bincount(widths, minlength=10) / count
    assert len(share) == 10
    assert share.sub(0.1).abs().max() < 4 * math.sqrt(0.09 / count)
    edges = hidden.int().diff(dim=1, prepend=torch.zeros(count, 1, dtype=torch.int32)).clamp(min=0).sum(dim=1)
    assert edges.max() == 1, "one mask is one stretch"


def test_time_starts_are_uniform() -> None:
    count = 20_000
    hidden = draw(ONLY_TIME, torch.full((count,), 200), 200, bins=1, seed=3)[..., 0]
    nine = hidden[hidden.sum(dim=1) == 9]
    starts = nine.int().argmax(dim=1).double()
    assert starts.min() <= 2
    assert starts.max() == 190  # (200 - 9) u rounded down
    assert float(starts.mean()) == pytest.approx(95, abs=4 * 191 / math.sqrt(12 * len(nine)))


def test_frequency_widths_follow_the_definition() -> None:
    count = 27_000
    hidden = draw(ONLY_FREQUENCY, torch.full((count,), 1), 1)[:, 0]
    share = torch.bincount(hidden.sum(dim=1), minlength=27) / count
    assert len(share) == 27, "27 bins are never hidden, 26 are"
    assert share.sub(1 / 27).abs().max() < 4.5 * math.sqrt(1 / 27 / count)
    wide = hidden[hidden.sum(dim=1) == 26].int().argmax(dim=1)
    assert wide.min() <= 1
    assert wide.max() == 53


def test_masks_of_many_are_a_union_and_drawn_apart() -> None:
    lengths = torch.full((400,), 100)
    hidden = draw(AugmentConfig(frequency_masks=2, time_masks=5, time_share=0.2), lengths, 100)
    bands, stretches = hidden.all(dim=1), hidden.all(dim=2)
    assert torch.equal(hidden, bands[:, None, :] | stretches[:, :, None])
    assert len(torch.unique(bands, dim=0)) > 350
    assert len(torch.unique(stretches, dim=0)) > 350
    # two bands that may overlap: the mean of their union, by the definition
    generator = torch.Generator().manual_seed(5)
    widths = torch.randint(27, (20_000, 2), generator=generator)
    starts = ((80 - widths) * torch.rand(widths.shape, generator=generator)).long()
    bins = torch.arange(80)
    union = ((bins >= starts[..., None]) & (bins < (starts + widths)[..., None])).any(dim=1).sum(dim=1).double().mean()
    assert float(bands.sum(dim=1).double().mean()) == pytest.approx(float(union), abs=2.5)


def test_follows_the_global_generator() -> None:
    lengths = torch.tensor([100, 80])
    assert torch.equal(draw(AugmentConfig(), lengths, 100, seed=7), draw(AugmentConfig(), lengths, 100, seed=7))
    assert not torch.equal(draw(AugmentConfig(), lengths, 100, seed=7), draw(AugmentConfig(), lengths, 100, seed=8))


def test_without_masks_nothing_changes() -> None:
    features = torch.randn(2, 9, 80)
    config = AugmentConfig(frequency_masks=0, time_masks=0)
    assert torch.equal(spec_augment(features, torch.tensor([9, 4]), config), features)
    for batch, frames in [(0, 5), (2, 0)]:
        empty = spec_augment(torch.ones(batch, frames, 80), torch.zeros(batch, dtype=torch.int64), AugmentConfig())
        assert empty.shape == (batch, frames, 80)


def test_few_bins_can_all_be_hidden() -> None:
    hidden = draw(ONLY_FREQUENCY, torch.full((500,), 1), 1, bins=4)[:, 0]
    assert sorted(set(hidden.sum(dim=1).tolist())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.5, 2.0])
def test_speed_moves_pitch_and_length(factor: float) -> None:
    t = torch.arange(16_000) / 16_000
    played = speed_perturb(torch.sin(2 * torch.pi * 1000 * t), factor)
    assert len(played) == math.ceil(16_000 / factor)
    expected = torch.sin(2 * torch.pi * 1000 * factor * torch.arange(len(played)) / 16_000)
    torch.testing.assert_close(played[200:-200], expected[200:-200], atol=2e-3, rtol=0)


def test_speed_one_is_the_same_audio_and_draws_nothing() -> None:
    audio = torch.randn(50)
    state = torch.get_rng_state()
    assert random_speed(audio, AugmentConfig()) is audio
    assert torch.equal(torch.get_rng_state(), state)
    assert len(speed_perturb(torch.zeros(0), 1.1)) == 0
    assert len(speed_perturb(torch.ones(1), 1.1)) == 1


def test_speeds_are_drawn_with_equal_chance() -> None:
    torch.manual_seed(0)
    config = AugmentConfig(speeds=(0.9, 1.0, 1.1))
    lengths = torch.tensor([len(random_speed(torch.zeros(99), config)) for _ in range(600)])
    assert sorted(set(lengths.tolist())) == [90, 99, 110]
    assert ((lengths == 99).double().mean() - 1 / 3).abs() < 0.08


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"frequency_masks": -1}, "augment.frequency_masks"),
        ({"frequency_width": 0}, "augment.frequency_width"),
        ({"time_share": 1.5}, "augment.time_share"),
        ({"speeds": ()}, "augment.speeds"),
        ({"speeds": (1.0, 3.0)}, "augment.speeds"),
    ],
)
def test_refuses(settings: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        AugmentConfig(**settings)  # type: ignore[arg-type]
