from __future__ import annotations

import os
import pickle
import re
import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.asr.data.audio import AudioStore, Recording, decode, ratio, read_audio, resampled, samples_at_rate
from apps.asr.data.header import read_header
from apps.asr.data.manifest import Utterance
from core.errors import InputError


def _tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "options"), [("wav", {}), ("flac", {}), ("wav", {"subtype": "PCM_24"})])
def test_16_khz_comes_back_to_the_bit(record, suffix, options):
    samples = np.arange(-2000, 2000, dtype=np.int16) * 16
    audio = read_audio(Utterance.of_file(record(f"a.{suffix}", samples, **options)))
    assert audio.dtype == torch.float32
    assert torch.equal(audio, torch.from_numpy(samples.astype(np.float32) / 32768))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(record, rate):
    audio = read_audio(Utterance.of_file(record("a.wav", _tone(440, rate), rate))).numpy()
    assert len(audio) == 8000
    middle = slice(1000, 7000)
    np.testing.assert_allclose(audio[middle], _tone(440, 16_000)[middle], atol=0.001)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_what_is_above_the_new_band_does_not_fold_back(rate):
    high = resampled(Recording(_tone(9_500, rate)[:, None], rate))
    assert np.abs(high[1000:-1000]).max() < 0.5e-4  # 80 dB down


@pytest.mark.parametrize("kind", [{"subtype": "VORBIS"}, {"subtype": "OPUS"}])
def test_lossy_formats_are_read(record, kind):
    path = record("a.ogg", _tone(440, 16_000, 1.0), **kind)
    audio = read_audio(Utterance.of_file(path)).numpy()
    assert len(audio) == 16_000 == read_header(path).frames
    assert abs(np.abs(np.fft.rfft(audio)).argmax() - 440) <= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4000), st.sampled_from([4000, 8000, 11_025, 16_000, 22_051, 44_100, 96_000, 127_123]))
def test_the_length_is_known_before_reading(frames, rate):
    samples = np.zeros((frames, 1), dtype=np.float32)
    assert len(resampled(Recording(samples, rate))) == samples_at_rate(frames, rate)


@given(st.integers(4000, 384_000))
def test_ratios_are_small_and_as_good_as_exact(rate):
    before, after = ratio(rate)
    assert before <= 1000
    assert abs(after / before * rate / 16_000 - 1) <= 6e-4


def test_channels_are_averaged_and_parts_taken_at_the_own_rate(record):
    left, right = _tone(300, 8000), _tone(700, 8000)
    path = record("a.wav", np.stack([left, right], axis=1), 8000)
    part = decode(Utterance("a", path, start=100, stop=300))
    np.testing.assert_allclose(part.samples, np.stack([left, right], axis=1)[100:300], atol=1e-4)
    assert len(read_audio(Utterance("a", path, start=100, stop=300))) == 400
    whole = resampled(Recording(((left + right) / 2)[:, None], 8000))
    np.testing.assert_allclose(read_audio(Utterance.of_file(path)).numpy(), whole, atol=1e-4)


def test_quiet_is_put_around(record):
    utterance = Utterance.of_file(record("a.wav"))
    plain, padded = read_audio(utterance), read_audio(utterance, pad_seconds=0.05)
    assert torch.equal(padded[800:-800], plain)
    assert padded[:800].abs().sum() + padded[-800:].abs().sum() == 0
    assert AudioStore(pad_seconds=0.05).samples(utterance) == len(padded) == 17_600


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.wav", 0.5),
        ("a.wav", 0.999),
        ("a.wav", 30),
        ("a.flac", 0.5),
        ("v.ogg", 0.5),
        ("o.ogg", 0.5),
        ("o.ogg", 0.999),
        ("a.mp3", 0.5),
    ],
)
def test_a_file_that_was_cut_off_is_refused(record, name, kept):
    subtype = {"v.ogg": "VORBIS", "o.ogg": "OPUS"}.get(name)
    path = record(name, 2.0, **({"subtype": subtype} if subtype else {}))
    assert len(read_audio(Utterance.of_file(path))) == 32_000
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(len(content) * kept)])
    with pytest.raises(InputError, match=r"(?s)^.*(cut off|cannot be decoded).*$") as caught:
        read_audio(Utterance.of_file(path))
    assert str(path) in str(caught.value)


def test_wav_from_a_pipe_declares_no_length_and_is_read(record):
    path = record("a.wav")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(read_audio(Utterance.of_file(path))) == 16_000


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.array([0, 0.5, np.nan, 0.1], dtype=np.float32), "sample 2 is not a finite number"),
        (np.array([[0, 0], [0, -np.inf]], dtype=np.float32), "sample 1 is not a finite number"),
        (np.array([0, 20_000.0], dtype=np.float32), "samples reach 2e+04 where full scale is 1"),
        (np.zeros(0, dtype=np.float32), "holds no samples"),
    ],
)
def test_values_that_are_no_sound_are_refused(record, samples, told):
    path = record("a.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match=re.escape(told)):
        read_audio(Utterance.of_file(path))


def test_what_is_no_recording_is_refused(record, tmp_path):
    (tmp_path / "text.wav").write_text("hello, this is text and no sound at all")
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    record("slow.wav", np.zeros(10), 100)
    os.mkfifo(tmp_path / "pipe.wav")
    for name, told in (
        ("text.wav", "cannot be decoded"),
        ("empty.flac", "0 bytes"),
        ("folder.wav", "a folder where a recording"),
        ("gone.wav", "no such file"),
        ("pipe.wav", "a pipe or a device"),
        ("slow.wav", "100 samples a second"),
    ):
        for read in (read_audio, AudioStore().samples):
            with pytest.raises(InputError, match=told):
                read(Utterance.of_file(tmp_path / name))


def test_a_header_that_promises_more_than_memory_is_refused(tmp_path, record):
    path = record("a.flac", 0.2)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the 36-bit number of samples in STREAMINFO
    content[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"hours|cut off|cannot be decoded"):
        read_audio(Utterance.of_file(path))


def test_a_part_beyond_the_end_is_refused(record):
    path = record("a.wav")
    for start, stop in ((0, 16_001), (16_000, None), (20_000, 30_000)):
        with pytest.raises(InputError, match="holds 16000"):
            read_audio(Utterance("a", path, start=start, stop=stop))


def test_the_store_gives_what_the_disk_gives_and_stops_at_its_limit(record):
    utterances = [Utterance.of_file(record(f"{name}.flac", 0.1, 8000)) for name in "abcde"]
    store = AudioStore(limit_bytes=2 * 1600 * 3)
    store.preload(utterances)
    assert store.bytes == 2 * 1600 * 3
    assert sum(utterance in store for utterance in utterances) == 3
    for utterance in utterances:
        fresh = read_audio(utterance)
        assert torch.equal(store[utterance], fresh)
        store[utterance].zero_()  # a copy: what is held stays
        assert torch.equal(store[utterance], fresh)
    for utterance in utterances:
        utterance.path.unlink()
    assert sum(_readable(store, utterance) for utterance in utterances) == 3
    assert pickle.loads(pickle.dumps(store)).bytes == store.bytes


def test_the_store_takes_what_others_decoded_while_there_is_room(record):
    one, two = (Utterance.of_file(record(f"{name}.wav", 0.1, 11_025)) for name in "ab")
    store = AudioStore(limit_bytes=2 * 1700)
    for utterance in (one, two):
        store.put(utterance, decode(utterance))
    assert one in store
    assert two not in store
    assert torch.equal(store[one], read_audio(one))
    one.path.unlink()
    assert store.samples(one) == len(store[one]) == 1600
    assert store.samples(two) == len(read_audio(two)) == 1600


def _readable(store: AudioStore, utterance: Utterance) -> bool:
    try:
        store[utterance]
    except InputError:
        return False
    return True


def test_preloading_tells_its_progress_and_the_first_bad_file(record):
    utterances = [Utterance.of_file(record(f"{name}.wav", 0.05)) for name in "abc"]
    seen = []
    AudioStore().preload(utterances, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    utterances[1].path.write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"b\.wav"):
        AudioStore().preload(utterances)


def test_real_recordings_have_the_length_their_headers_say(real_data):
    folder = real_data / "asr_misc_eval" / "audio"
    if not folder.is_dir():
        pytest.skip("no asr_misc_eval")
    for path in sorted(folder.iterdir())[:5]:
        utterance = Utterance.of_file(path)
        assert len(read_audio(utterance)) == AudioStore().samples(utterance) == soundfile.info(str(path)).frames
