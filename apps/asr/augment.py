"""Augmentation of training speech: SpecAugment on features, change of speed on audio.

SpecAugment (Park et al., Interspeech 2019) hides bands of the normalised features with 0, their mean. The widths are
those of the released program (kssteven418/Squeezeformer, ``src/augmentations/augmentation.py``): for an utterance of L
frames and F bins

    frequency mask    width w uniform in {0, …, 26},        start ⌊(F - w) u⌋
    time mask         width w = ⌊L p⌋, p uniform in [0, 5 %),  start ⌊(L - w) u⌋        u uniform in [0, 1)

each drawn apart for every utterance and mask; masks may overlap, there is no time warp. By these starts the very last
frame and bin stay visible. The paper's own time masks have a fixed greatest width.

Speed (Ko et al., Audio augmentation for speech recognition, Interspeech 2015): resampled and played at the old rate, so
that pitch changes with tempo. It is no part of the published recipe and hence off by default.

Everything random comes from torch's global CPU generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apps.asr.data.resample import resample
from core.errors import InputError
from core.sequence import Ragged

_ZEROS = 8
"""Of the resampling filter, a quarter of what reading has: a speed is drawn at every step, and no ear compares."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is drawn; the defaults are those of the published XS, S and SM (M: 7 time masks, ML and L: 10)."""

    frequency_masks: int = 2
    """Bands of mel bins hidden in each utterance."""
    frequency_width: int = 27
    """Such a band is narrower than this many bins."""
    time_masks: int = 5
    """Stretches of time hidden in each utterance."""
    time_share: float = 0.05
    """Such a stretch is shorter than this share of the utterance."""
    speeds: tuple[float, ...] = (1.0,)
    """Each utterance is played at one of these, drawn with equal chance; (0.9, 1.0, 1.1) is usual elsewhere."""

    def __post_init__(self) -> None:
        for name in ("frequency_masks", "time_masks"):
            if getattr(self, name) < 0:
                raise InputError(f"must be at least 0, got {getattr(self, name)}", where=f"augment.{name}")
        if self.frequency_width < 1:
            raise InputError(f"must be at least 1, got {self.frequency_width}", where="augment.frequency_width")
        if not 0 <= self.time_share <= 1:
            raise InputError(f"must lie in [0, 1], got {self.time_share}", where="augment.time_share")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise InputError(f"must be factors from 0.5 to 2, got {self.speeds}", where="augment.speeds")


def spec_augment(
    features: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"], config: AugmentConfig
) -> Float[Tensor, "B T F"]:
    """A copy of ``features`` with bands of time and frequency set to 0.

    Args:
        features: normalised, zero in the padding.
        lengths: frames of each utterance; time masks lie within them.
        config: how many masks, and how wide.

    Raises:
        InputError: a length is negative or beyond T.

    >>> hidden = spec_augment(torch.ones(2, 200, 80), torch.tensor([200, 90]), AugmentConfig()) == 0
    >>> bool(hidden.any()), hidden.shape
    (True, torch.Size([2, 200, 80]))
    """
    batch, frames, bins = features.shape
    lengths = Ragged.from_lengths(lengths, frames).lengths.cpu()[:, None]
    shares = config.time_share * torch.rand(batch, config.time_masks)
    time = _bands((lengths * shares).long(), lengths, frames)
    widest = min(config.frequency_width, bins + 1)
    frequency = _bands(torch.randint(widest, (batch, config.frequency_masks)), torch.tensor(bins), bins)
    hidden = time[:, :, None] | frequency[:, None, :]
    return features.masked_fill(hidden.to(features.device), 0.0)


def _bands(widths: Int[Tensor, "B M"], size: Int[Tensor, "*#B"], count: int) -> Bool[Tensor, "B T"]:
    """Where any of M bands of these widths lies; each starts anywhere such that it ends within ``size``."""
    starts = ((size - widths) * torch.rand(widths.shape)).long()[..., None]
    position = torch.arange(count)
    return ((position >= starts) & (position < starts + widths[..., None])).any(dim=1)


def speed_perturb(audio: Float[Tensor, " N"], factor: float) -> Float[Tensor, " M"]:
    """``audio`` played ``factor`` times as fast: M = N / factor samples, rounded up.

    The factor is taken as the nearest ratio of whole numbers up to 100.

    >>> speed_perturb(torch.randn(1100), 1.1).shape
    torch.Size([1000])
    """
    ratio = Fraction(factor).limit_denominator(100)
    if ratio == 1 or len(audio) == 0:
        return audio
    return torch.from_numpy(resample(audio.numpy(), ratio.numerator, ratio.denominator, zeros=_ZEROS))


def random_speed(audio: Float[Tensor, " N"], config: AugmentConfig) -> Float[Tensor, " M"]:
    """``audio`` at one of the configured speeds; nothing is drawn where there is but one."""
    if len(config.speeds) == 1:
        return speed_perturb(audio, config.speeds[0])
    return speed_perturb(audio, config.speeds[int(torch.randint(len(config.speeds), ()))])
