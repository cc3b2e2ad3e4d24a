"""Log-mel features of 16 kHz speech: what the encoder reads instead of samples.

    audio -> amplitude -> pre-emphasis -> frames -> |FFT|² -> mel filters -> logarithm -> normalised (T, F)

Frames of 25 ms (400 samples, in the middle of an FFT of 512) every 10 ms, each centred on its multiple of 160 samples;
what lies outside the utterance is padded. Two programs that train Squeezeformer differ in almost every step, and a
model only understands the features it was trained on; each field of `FeatureConfig` is one such difference:

============= ===================================================== =============================================
field         `official` (kssteven418/Squeezeformer)                `nemo` (NVIDIA/NeMo)
============= ===================================================== =============================================
amplitude     x / (max |x| + 1e-9)                                  as it is
preemphasis   y_t = x_t - 0.97 x_(t-1), y_0 = x_0                   the same
padding       reflected at the utterance's own ends; 1 + ⌊N/160⌋    zeros; ⌊N/160⌋ frames
window        periodic Hann                                         symmetric Hann
mel_scale     2595 log10(1 + f/700), triangles straight in mel      Slaney's, triangles straight in Hz, unit area
log           10 log10(max(1e-10, p)), at least maximum - 80 (dB)   ln(p + 2^-24)
normaliser    one mean and variance (+ 1e-9) of the whole utterance one mean and unbiased deviation (+ 1e-5) a bin
============= ===================================================== =============================================

Statistics are the utterance's own, over its own frames: the features of an utterance do not depend on the batch it is
in. Frames beyond an utterance are zero. The FFT is float32 and what follows float64, also under autocast: it costs
little, and what a matrix product rounds differs with the size of the batch, which a small deviation would magnify.

Deviations: NeMo's dither (1e-5, in training only) is left out; audio shorter than the reflection, which the official
program refuses, is reflected back and forth. The third well-known form, Kaldi's filter banks as WeNet uses them, is no
member: it takes out the mean and pre-emphasises within each frame, and its normalisation is a table that belongs to a
trained model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from apps.asr.data.audio import SAMPLE_RATE as SAMPLE_RATE
from core.command import require
from core.errors import InputError
from core.sequence import Ragged

FFT, WINDOW, HOP = 512, 400, 160
"""Samples."""

_SMALLEST_POWER = 1e-10
_DECIBELS = 80.0


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The switches of the extractor; the defaults are the official profile."""

    n_mels: int = 80
    """Mel bins F."""
    amplitude: Literal["peak", "raw"] = "peak"
    """Divide each utterance by its largest sample, or leave the level as recorded."""
    preemphasis: float = 0.97
    """How much of the sample before is taken away; 0 is none."""
    padding: Literal["reflect", "zero"] = "reflect"
    """What lies beyond the ends. With zeros the frame centred on the very end is not counted."""
    window: Literal["periodic", "symmetric"] = "periodic"
    """Form of the Hann window."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """Frequency scale and form of the filters."""
    log: Literal["decibel", "natural"] = "decibel"
    """Decibels within 80 of the utterance's maximum, or the natural logarithm with a guard."""
    normaliser: Literal["utterance", "bin"] = "utterance"
    """One mean and deviation for all of an utterance, or one for each of its bins."""

    def __post_init__(self) -> None:
        if self.n_mels < 1:
            raise InputError(f"must be at least 1, got {self.n_mels}", where="features.n_mels")
        if not 0 <= self.preemphasis < 1:
            raise InputError(f"must lie in [0, 1), got {self.preemphasis}", where="features.preemphasis")


def official() -> FeatureConfig:
    """The features of the published Squeezeformer models."""
    return FeatureConfig()


def nemo() -> FeatureConfig:
    """The features of NeMo's Squeezeformer models, as counted since its pull request 13827 (2025)."""
    return FeatureConfig(
        amplitude="raw",
        padding="zero",
        window="symmetric",
        mel_scale="slaney",
        log="natural",
        normaliser="bin",
    )


class LogMel(nn.Module):
    """The extractor; it has no parameters, and nothing of it needs saving but its config.

    >>> extract = LogMel()
    >>> features, lengths = extract(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 101, 80]), [101, 51])
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig | None = None) -> None:
        super().__init__()
        self.config = config or FeatureConfig()
        hann = torch.hann_window(WINDOW, periodic=self.config.window == "periodic", dtype=torch.float64)
        self.register_buffer("window", hann.float(), persistent=False)
        self.register_buffer("filters", mel_filters(self.config), persistent=False)

    def frames(self, samples: int) -> int:
        """The number of frames of that many samples, exactly; 0 of nothing."""
        if samples == 0:
            return 0
        return samples // HOP + (self.config.padding == "reflect")

    def forward(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B T F"], Int[Tensor, "B"]]:
        """Features, and the frames of each utterance.

        Args:
            audio: samples in [-1, 1] at 16 kHz; what lies beyond a length is not read.
            lengths: samples of each utterance, 0 to N.

        Returns:
            float32 features, T = `frames` of N, with zeros in the padding; int64 lengths in frames.
        """
        ragged = Ragged.from_lengths(lengths, audio.shape[1])
        if audio.numel() == 0:
            shape = len(audio), self.frames(audio.shape[1]), self.config.n_mels
            return audio.new_zeros(shape, dtype=torch.float32), ragged.lengths
        with torch.autocast(audio.device.type, enabled=False):
            frames = Ragged(self._frame_lengths(ragged.lengths), self.frames(audio.shape[1]))
            power = self._power(self._conditioned(audio.float(), ragged.mask), ragged.lengths, frames.max_length)
            logarithm = self._logarithm(power.double() @ self.filters.double(), frames.mask)
            return self._normalised(logarithm, frames), frames.lengths

    def _frame_lengths(self, samples: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        extra = int(self.config.padding == "reflect")
        return torch.where(samples > 0, samples // HOP + extra, 0)

    def _conditioned(self, audio: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        audio = audio.masked_fill(~mask, 0.0)
        if self.config.amplitude == "peak":
            audio = audio / (audio.abs().amax(dim=1, keepdim=True) + 1e-9)
        before = nn.functional.pad(audio[:, :-1], (1, 0))
        return (audio - self.config.preemphasis * before).masked_fill(~mask, 0.0)

    def _power(self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"], count: int) -> Float[Tensor, "B T K"]:
        padded = nn.functional.pad(audio, (FFT // 2, FFT // 2))
        if self.config.padding == "reflect":
            padded = _reflected(audio, lengths, padded)
        spectrum = torch.stft(
            padded, FFT, HOP, WINDOW, self.window.float(), center=False, onesided=True, return_complex=True
        )
        spectrum = spectrum[..., :count]
        # Not a sum over the two parts, whose axis is too short for a fast one.
        return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)

    def _logarithm(self, power: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T F"]:
        if self.config.log == "natural":
            return torch.log(power + 2.0**-24)
        decibels = 10.0 * torch.log10(power.clamp(min=_SMALLEST_POWER))
        if power.shape[1] == 0:
            return decibels
        loudest = decibels.masked_fill(~mask[..., None], -torch.inf).amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - _DECIBELS)

    def _normalised(self, values: Float[Tensor, "B T F"], frames: Ragged) -> Float[Tensor, "B T F"]:
        real = frames.mask[..., None]
        values = values.masked_fill(~real, 0.0)
        count = frames.lengths.clamp(min=1)[:, None, None]
        dims = (1, 2) if self.config.normaliser == "utterance" else (1,)
        if len(dims) == 2:
            count = count * values.shape[2]
        centred = (values - values.sum(dim=dims, keepdim=True) / count).masked_fill(~real, 0.0)
        squares = centred.square().sum(dim=dims, keepdim=True)
        if self.config.normaliser == "utterance":
            deviation = torch.sqrt(squares / count + 1e-9)
        else:
            deviation = torch.sqrt(squares / (count - 1).clamp(min=1)) + 1e-5
        return (centred / deviation).float()


def mel_filters(config: FeatureConfig) -> Float[Tensor, "K F"]:
    """Weights of the 257 FFT bins in each mel bin, from 0 to 8000 Hz.

    Raises:
        InputError: so many mel bins that one of them would hold no FFT bin.
    """
    bins, highest = FFT // 2 + 1, SAMPLE_RATE / 2
    if config.mel_scale == "slaney":
        torchaudio = require("torchaudio", "asr")
        scale = {"norm": "slaney", "mel_scale": "slaney"}
        weights: Tensor = torchaudio.functional.melscale_fbanks(bins, 0.0, highest, config.n_mels, SAMPLE_RATE, **scale)
    else:
        mel = 2595.0 * torch.log10(1.0 + torch.linspace(0.0, highest, bins, dtype=torch.float64) / 700.0)
        edges = torch.linspace(0.0, float(mel[-1]), config.n_mels + 2, dtype=torch.float64)
        rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
        weights = torch.minimum(rising, falling).clamp(min=0.0).float()
    if bool((weights.amax(dim=0) == 0).any()):
        raise InputError(
            f"{config.n_mels} mel bins are too many for an FFT of {FFT} samples: some would be empty",
            where="features.n_mels",
            mend="80 is the usual number",
        )
    return weights


def _reflected(
    audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"], padded: Float[Tensor, "B P"]
) -> Float[Tensor, "B P"]:
    """``padded`` with each utterance mirrored at its own two ends, without repeating the end itself."""
    half = FFT // 2
    steps = torch.arange(1, half + 1, device=audio.device)
    length = lengths[:, None]
    ends = (steps.flip(0).expand(len(audio), -1), length - 1 + steps)
    left, right = (audio.gather(1, _mirror(position, length)) for position in ends)
    # `left` first: where an utterance is empty the two overlap, and neither is ever read
    padded = torch.cat([left, padded[:, half:]], dim=1)
    return padded.scatter(1, half + length - 1 + steps, right)


def _mirror(position: Int[Tensor, "B P"], length: Int[Tensor, "B 1"]) -> Int[Tensor, "B P"]:
    """Positions >= 0 outside 0 .. length-1 folded back into it, as often as need be."""
    period = (2 * (length - 1)).clamp(min=1)
    folded = position % period
    return torch.where(folded > (length - 1).clamp(min=0), period - folded, folded).clamp(min=0)
