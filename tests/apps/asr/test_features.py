from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from apps.asr.features import FeatureConfig, LogMel, mel_filters, nemo, official
from core.errors import InputError

Array = NDArray[np.float64]
PROFILES = [pytest.param(official(), id="official"), pytest.param(nemo(), id="nemo")]
DIFFERENCES = {
    "amplitude": "raw",
    "preemphasis": 0.0,
    "padding": "zero",
    "window": "symmetric",
    "mel_scale": "slaney",
    "log": "natural",
    "normaliser": "bin",
}


def chirp(samples: int, seed: int = 0) -> torch.Tensor:
    """A sweep from 100 to 7000 Hz under a slow envelope, with a little noise."""
    t = np.arange(samples) / 16_000
    sweep = np.sin(2 * np.pi * (100 * t + 3450 * t**2)) * (0.2 + 0.15 * np.sin(9 * t))
    noise = np.random.default_rng(seed).standard_normal(samples)
    return torch.from_numpy(sweep + 5e-3 * noise).float()


# --- the definitions, in float64, frame by frame ----------------------------------------------------------------------


def slaney_mel(frequency: Array) -> Array:
    return np.where(
        frequency < 1000, frequency * 3 / 200, 15 + 27 * np.log(np.maximum(frequency, 1) / 1000) / np.log(6.4)
    )


def reference_filters(config: FeatureConfig) -> Array:
    frequency = np.arange(257) * 16_000 / 512
    if config.mel_scale == "htk":
        grid = 1127 * np.log(1 + frequency / 700)
        edges = np.linspace(0, grid[-1], config.n_mels + 2)
    else:
        grid = frequency
        marks = np.linspace(0, slaney_mel(np.array(8000.0)), config.n_mels + 2)
        edges = np.where(marks < 15, marks * 200 / 3, 1000 * np.exp((marks - 15) * np.log(6.4) / 27))
    weights = np.zeros((257, config.n_mels))
    for m in range(config.n_mels):
        low, centre, high = edges[m : m + 3]
        for k, f in enumerate(grid):
            if low < f <= centre:
                weights[k, m] = (f - low) / (centre - low)
            elif centre < f < high:
                weights[k, m] = (high - f) / (high - centre)
        if config.mel_scale == "slaney":
            weights[:, m] *= 2 / (high - low)
    return weights


def reference(config: FeatureConfig, audio: torch.Tensor) -> Array:
    x = audio.double().numpy()
    if config.amplitude == "peak":
        x = x / (np.abs(x).max() + 1e-9)
    x = np.concatenate([x[:1], x[1:] - config.preemphasis * x[:-1]])
    count = len(x) // 160 + (1 if config.padding == "reflect" else 0)
    padded = np.pad(x, 256, mode="reflect" if config.padding == "reflect" else "constant")
    period = 400 if config.window == "periodic" else 399
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / period)
    power = np.stack([np.abs(np.fft.rfft(window * padded[160 * t : 160 * t + 512])) ** 2 for t in range(count)])
    mel = power @ reference_filters(config)
    if config.log == "decibel":
        values = 10 * np.log10(np.maximum(1e-10, mel))
        values = np.maximum(values, values.max() - 80)
    else:
        values = np.log(mel + 2.0**-24)
    if config.normaliser == "utterance":
        return (values - values.mean()) / np.sqrt(values.var() + 1e-9)
    return (values - values.mean(axis=0)) / (values.std(axis=0, ddof=1) + 1e-5)


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", PROFILES)
@pytest.mark.parametrize("samples", [480, 4801, 16_000])
def test_equals_the_definition(config: FeatureConfig, samples: int) -> None:
    audio = chirp(samples)
    features, lengths = LogMel(config)(audio[None], torch.tensor([samples]))
    expected = reference(config, audio)
    assert int(lengths[0]) == len(expected) == features.shape[1]
    np.testing.assert_allclose(features[0].numpy(), expected, atol=5e-4)


@pytest.mark.parametrize("field", DIFFERENCES)
def test_every_switch_equals_its_definition(field: str) -> None:
    # decibels that are normalised as a whole do not tell the level
    base = dataclasses.replace(official(), log="natural") if field == "amplitude" else official()
    config = dataclasses.replace(base, **{field: DIFFERENCES[field]})
    audio = chirp(3210)
    features = LogMel(config)(audio[None], torch.tensor([3210]))[0][0].numpy()
    np.testing.assert_allclose(features, reference(config, audio), atol=5e-4)
    other = LogMel(base)(audio[None], torch.tensor([3210]))[0][0].numpy()[: len(features)]
    assert np.abs(features - other).max() > 1e-3


@pytest.mark.parametrize("config", PROFILES)
def test_filters_equal_the_definition(config: FeatureConfig) -> None:
    np.testing.assert_allclose(mel_filters(config).numpy(), reference_filters(config), atol=2e-6)


GOLDEN = {
    "official": [0.80793, 1.9015, -0.4962, 0.19558, 0.39269, 0.89929],
    "nemo": [5.03808, 2.29936, -0.14696, -0.22041, -2.57444, 0.04321],
}


@pytest.mark.parametrize(("name", "config"), [("official", official()), ("nemo", nemo())])
def test_golden_numbers_of_a_chirp(name: str, config: FeatureConfig) -> None:
    features = LogMel(config)(chirp(8000)[None], torch.tensor([8000]))[0][0]
    points = [(0, 0), (3, 10), (17, 25), (30, 41), (42, 60), (49, 79)]
    assert [float(features[t, f]) for t, f in points] == pytest.approx(GOLDEN[name], abs=1e-4)


@pytest.mark.parametrize("config", PROFILES)
def test_an_utterance_does_not_depend_on_its_batch(config: FeatureConfig) -> None:
    extract = LogMel(config)
    lengths = torch.tensor([0, 1, 100, 159, 160, 161, 255, 256, 257, 400, 511, 1601, 5000, 7777, 8000])
    torch.manual_seed(0)
    audio = 50 * torch.randn(len(lengths), 9001)  # the padding holds loud noise
    audio[3, 200:] = torch.nan
    for row, length in enumerate(lengths.tolist()):
        audio[row, :length] = chirp(length, seed=row)
    many, counts = extract(audio, lengths)
    assert many.shape[1] == extract.frames(9001)
    assert torch.isfinite(many).all()
    for row, length in enumerate(lengths.tolist()):
        one, count = extract(audio[row : row + 1, :length], lengths[row : row + 1])
        assert int(count[0]) == int(counts[row]) == one.shape[1] == extract.frames(length)
        torch.testing.assert_close(many[row, : one.shape[1]], one[0], atol=1e-6, rtol=0)
        assert not many[row, one.shape[1] :].any()


@pytest.mark.parametrize("samples", [1, 2, 3, 100, 256, 257])
def test_reflects_as_often_as_short_audio_needs(samples: int) -> None:
    audio = chirp(samples) + 0.1
    features = LogMel()(audio[None], torch.tensor([samples]))[0][0].numpy()
    np.testing.assert_allclose(features, reference(official(), audio), atol=5e-4)


def test_counts_frames() -> None:
    samples = [0, 1, 159, 160, 161, 319, 320, 16_000]
    assert [LogMel(official()).frames(n) for n in samples] == [0, 1, 1, 2, 2, 2, 3, 101]
    assert [LogMel(nemo()).frames(n) for n in samples] == [0, 0, 0, 1, 1, 1, 2, 100]


@pytest.mark.parametrize("config", PROFILES)
def test_silence_and_constants_give_zeros_not_noise(config: FeatureConfig) -> None:
    extract = LogMel(config)
    features, lengths = extract(torch.zeros(2, 4000), torch.tensor([4000, 170]))
    assert features.shape[2] == 80
    assert lengths.min() > 0
    assert features.abs().max() < 1e-8
    steady = LogMel(dataclasses.replace(config, padding="zero"))(torch.full((1, 4000), 0.1), torch.tensor([4000]))[0]
    assert torch.isfinite(steady).all()


@pytest.mark.parametrize("config", PROFILES)
def test_nothing_gives_nothing(config: FeatureConfig) -> None:
    extract = LogMel(config)
    for batch, width in [(2, 0), (0, 0), (0, 5), (3, 5)]:
        features, lengths = extract(torch.zeros(batch, width), torch.zeros(batch, dtype=torch.int64))
        assert features.shape == (batch, extract.frames(width), 80)
        assert not lengths.any()
        assert not features.any()


def test_official_statistics_are_of_the_whole_utterance() -> None:
    features = LogMel()(chirp(9000)[None], torch.tensor([9000]))[0].double()
    assert float(features.mean()) == pytest.approx(0, abs=1e-6)
    assert float(features.std(correction=0)) == pytest.approx(1, abs=1e-6)
    bins = LogMel(nemo())(chirp(9000)[None], torch.tensor([9000]))[0][0].double()
    torch.testing.assert_close(bins.mean(dim=0), torch.zeros(80, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(bins.std(dim=0), torch.ones(80, dtype=torch.float64), atol=1e-4, rtol=0)


def test_the_official_level_does_not_matter() -> None:
    audio = chirp(5000)
    loud, soft = (LogMel()((gain * audio)[None], torch.tensor([5000]))[0] for gain in (1.0, 0.01))
    torch.testing.assert_close(loud, soft, atol=2e-3, rtol=0)


def test_float32_under_autocast() -> None:
    extract, audio, lengths = LogMel(), chirp(4000)[None], torch.tensor([4000])
    expected = extract(audio, lengths)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = extract(audio, lengths)[0]
    assert under.dtype == torch.float32
    assert torch.equal(under, expected)
    assert extract(audio.bfloat16(), lengths)[0].dtype == torch.float32


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="some would be empty"):
        LogMel(FeatureConfig(n_mels=150))
    with pytest.raises(InputError, match="at least 1"):
        FeatureConfig(n_mels=0)
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        FeatureConfig(preemphasis=1.0)
    with pytest.raises(InputError, match="beyond the padded length"):
        LogMel()(torch.zeros(1, 10), torch.tensor([11]))


def test_no_state_to_save() -> None:
    assert not LogMel().state_dict()
