from __future__ import annotations

import dataclasses
import json

import pytest
import soundfile
import torch

from apps.asr.config import ModelConfig
from apps.asr.data.manifest import Utterance
from apps.asr.model import Squeezeformer
from apps.asr.presets import tiny
from apps.asr.recogniser import Recogniser
from apps.asr.tokenizer import CharTokenizer, SentencePieceTokenizer
from core import artefact
from core.errors import InputError


@pytest.fixture(scope="module")
def recogniser(babbler) -> Recogniser:
    return babbler()


@pytest.fixture(scope="module")
def audio() -> list[torch.Tensor]:
    torch.manual_seed(1)
    lengths = [16_000, 31_234, 0, 7, 399, 640, 15_999, 48_000, 2_560]
    return [0.1 * torch.randn(length) for length in lengths]


def outputs(recogniser, recordings, **options):
    return list(recogniser.logits(recordings, **options))


@pytest.mark.parametrize("batch_seconds", [0.5, 4.0, 100.0])
def test_a_recording_gives_the_same_alone_and_in_any_batch(recogniser, audio, batch_seconds):
    together = outputs(recogniser, audio, batch_seconds=batch_seconds)
    for signal, (samples, logits) in zip(audio, together, strict=True):
        [(alone_samples, alone)] = outputs(recogniser, [signal])
        assert samples == alone_samples == len(signal)
        assert logits.shape == alone.shape == (recogniser.output_frames(len(signal)), recogniser.tokenizer.size)
        torch.testing.assert_close(logits, alone, atol=2e-5, rtol=1e-4)


def test_texts_are_in_order_and_of_what_is_too_short_empty(recogniser, audio):
    found = recogniser.transcribe(audio, batch_seconds=2.0)
    assert [one.seconds for one in found] == [len(signal) / 16_000 for signal in audio]
    assert [found[index].text for index in (2, 3, 4)] == ["", "", ""]
    assert found[0].text == recogniser.transcribe(audio[:1])[0].text != ""


def test_windows_of_a_network_that_looks_about_are_the_whole_in_the_middle(babbler):
    """Without attention it sees a stretch that the context covers: then cutting changes nothing but statistics."""
    base = tiny()
    config = dataclasses.replace(
        base,
        # The level of a recording is kept, and each bin's own mean is that of noise, which is the same everywhere.
        features=dataclasses.replace(base.features, amplitude="raw", log="natural"),
        model=ModelConfig(width=16, layers=2, heads=2, reduce=None, kernel=3, dropout=0.0),
    )
    recogniser = babbler(config)
    with torch.no_grad():
        for name, parameter in recogniser.model.named_parameters():
            if "relative" in name or "value" in name:
                parameter.zero_()
    torch.manual_seed(2)
    signal = 0.1 * torch.randn(16_000 * 21 + 333)
    [(_, whole)] = outputs(recogniser, [signal])
    [(samples, parts)] = outputs(recogniser, [signal], window=8.0, context=2.4)
    assert samples == len(signal)
    assert parts.shape == whole.shape
    agree = (parts.argmax(-1) == whole.argmax(-1)).float().mean()
    assert agree > 0.9
    assert (parts - whole).abs().mean() < 0.1 * whole.std()


def test_a_long_recording_is_that_of_its_windows(recogniser):
    torch.manual_seed(3)
    signal = 0.1 * torch.randn(16_000 * 10)
    [(_, logits)] = outputs(recogniser, [signal], window=4.0, context=0.8)
    [(_, first)] = outputs(recogniser, [signal[: 16_000 * 4]])
    torch.testing.assert_close(logits[:75], first[:75], atol=2e-5, rtol=1e-4)  # up to 3.2 s, a context before the cut
    [(_, last)] = outputs(recogniser, [signal[16_000 * 6 :]])
    torch.testing.assert_close(logits[-65:], last[-65:], atol=2e-5, rtol=1e-4)  # from 7.4 s, the middle of the overlap


def test_long_files_are_read_window_by_window(recogniser, tmp_path, monkeypatch):
    import apps.asr.pieces as pieces

    torch.manual_seed(4)
    signal = (0.1 * torch.randn(8_000 * 12)).clamp(-0.9, 0.9)
    soundfile.write(tmp_path / "a.wav", signal.numpy(), 8_000, subtype="PCM_16")
    longest = []
    read = pieces.read_audio
    monkeypatch.setattr(pieces, "read_audio", lambda u: (a := read(u), longest.append(len(a)))[0])
    [(samples, parts)] = outputs(recogniser, [tmp_path / "a.wav"], window=4.0, context=0.8)
    assert samples == 16_000 * 12
    assert max(longest) == 16_000 * 4
    whole = read(Utterance.of_file(tmp_path / "a.wav"))
    [(_, expected)] = outputs(recogniser, [whole], window=4.0, context=0.8)
    # The resampler sees nothing beyond the cuts, which lie in the part that is thrown away.
    agree = (parts.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agree > 0.97


def test_parts_of_files_are_recognised_as_such(recogniser, tmp_path):
    torch.manual_seed(5)
    signal = (0.1 * torch.randn(16_000 * 3)).clamp(-0.9, 0.9)
    soundfile.write(tmp_path / "a.wav", signal.numpy(), 16_000, subtype="FLOAT")
    part = Utterance("a", tmp_path / "a.wav", start=8_000, stop=40_000)
    [(samples, logits)] = outputs(recogniser, [part])
    [(_, expected)] = outputs(recogniser, [(signal[8_000:40_000] * 32_768).round() / 32_768])
    assert samples == 32_000
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)


def test_times_are_those_of_the_recording_with_and_without_padding(speak, babbler):
    plain = babbler()
    padded = Recogniser(dataclasses.replace(tiny(), pad_seconds=0.16), plain.tokenizer, plain.model)
    signal = torch.from_numpy(speak("ab cd"))
    for recogniser in (plain, padded):
        [found] = recogniser.transcribe([signal])
        assert found.seconds == len(signal) / 16_000
        assert found.words
        assert all(0 <= word.start <= word.stop <= found.seconds for word in found.words)
    frames = [len(logits) for _, logits in (outputs(one, [signal])[0] for one in (plain, padded))]
    assert frames[1] - frames[0] == 8


@pytest.mark.parametrize("kind", ["char", "sentencepiece"])
def test_a_saved_recogniser_answers_as_before(tmp_path, audio, kind):
    torch.manual_seed(0)
    tokenizer = CharTokenizer.fit(["abc"]) if kind == "char" else SentencePieceTokenizer.fit(["ab abc cab ba"] * 5, 12)
    recogniser = Recogniser(tiny(), tokenizer, Squeezeformer(80, tokenizer.size, tiny().model))
    recogniser.save(tmp_path)
    loaded = Recogniser.load(tmp_path)
    assert loaded.config == recogniser.config
    assert loaded.tokenizer == tokenizer
    for (_, one), (_, two) in zip(outputs(recogniser, audio), outputs(loaded, audio), strict=True):
        assert torch.equal(one, two)


def test_a_recogniser_from_before_a_field_was_added_answers_as_before(tmp_path, audio, recogniser, capsys):
    recogniser.save(tmp_path)
    tree = artefact.load(tmp_path, kind="manyformer.asr", version=1)
    assert tree["config"]["model"].pop("block") == "squeezeformer"
    assert tree["config"]["model"].pop("position") == "none"
    artefact.save(tmp_path, tree, kind="manyformer.asr", version=1)
    loaded = Recogniser.load(tmp_path)
    said = f"{tmp_path}: was written before there was model.position, model.block; read with the default\n"
    assert capsys.readouterr() == ("", said)
    assert loaded.config == recogniser.config
    for (_, one), (_, two) in zip(outputs(recogniser, audio), outputs(loaded, audio), strict=True):
        assert torch.equal(one, two)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path, recogniser):
    other = CharTokenizer.fit(["abcdefgh"])
    with pytest.raises(InputError, match="7 outputs, the tokenizer 10"):
        Recogniser(recogniser.config, other, recogniser.model)
    recogniser.save(tmp_path)
    tree = artefact.load(tmp_path, kind="manyformer.asr", version=1)
    artefact.save(tmp_path, {**tree, "tokenizer": other.state()}, kind="manyformer.asr", version=1)
    with pytest.raises(InputError, match="7 outputs, the tokenizer 10"):
        Recogniser.load(tmp_path)


@pytest.mark.parametrize("missing", ["config", "tokenizer", "outputs", "model"])
def test_an_incomplete_model_is_refused_in_one_line(tmp_path, recogniser, missing):
    recogniser.save(tmp_path)
    tree = dict(artefact.load(tmp_path, kind="manyformer.asr", version=1))
    del tree[missing]
    artefact.save(tmp_path, tree, kind="manyformer.asr", version=1)
    with pytest.raises(InputError, match="does not fit together") as caught:
        Recogniser.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_foreign_model_is_refused(tmp_path, recogniser):
    recogniser.save(tmp_path)
    tensors = next(tmp_path.glob("*.safetensors"))
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        Recogniser.load(tmp_path)
    artefact.save(tmp_path, {"a": 1}, kind="other", version=1)
    with pytest.raises(InputError):
        Recogniser.load(tmp_path)
    assert json.loads((tmp_path / "artefact.json").read_text())["kind"] == "other"
