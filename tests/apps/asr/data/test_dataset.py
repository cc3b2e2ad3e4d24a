from __future__ import annotations

import pytest
import torch

from apps.asr.augment import AugmentConfig
from apps.asr.data.audio import AudioStore, read_audio
from apps.asr.data.dataset import SpeechBatches
from apps.asr.data.manifest import Utterance
from apps.asr.features import LogMel
from core.errors import InputError
from core.training import BatchSource, Loader

PLAIN = AugmentConfig(frequency_masks=0, time_masks=0)


@pytest.fixture
def utterances(record) -> list[Utterance]:
    return [Utterance.of_file(record(f"{n}.wav", 0.2 + 0.13 * n)) for n in range(5)]


def _batches(utterances, augment=None, **options) -> SpeechBatches:
    targets = [[1] * (n + 1) for n in range(len(utterances))]
    targets[2] = []
    return SpeechBatches(utterances, targets, AudioStore(**options), LogMel(), augment)


def test_a_batch_holds_what_each_utterance_gives_alone(utterances):
    batches = _batches(utterances)
    batch = batches[torch.tensor([3, 0, 2])]
    assert isinstance(batches, BatchSource)
    assert batch["target_lengths"].tolist() == [4, 1, 0]
    assert batch["targets"].tolist() == [1] * 5
    assert batch["targets"].dtype == torch.int64
    assert batch["index"].tolist() == [3, 0, 2]
    for row, index in enumerate((3, 0, 2)):
        audio = read_audio(utterances[index])
        alone, (frames,) = LogMel()(audio[None], torch.tensor([len(audio)]))
        assert batch["lengths"][row] == frames == LogMel().frames(len(audio))
        torch.testing.assert_close(batch["features"][row, :frames], alone[0], atol=1e-5, rtol=0)
        assert (batch["features"][row, frames:] == 0).all()


def test_seconds_are_those_of_the_audio_without_decoding(utterances):
    batches = _batches(utterances, pad_seconds=0.05)
    assert batches.seconds == pytest.approx([0.3 + 0.13 * n for n in range(5)], abs=1e-4)
    assert batches.store.bytes == 0
    assert batches[torch.tensor([4])]["lengths"].item() == LogMel().frames(round(batches.seconds[4] * 16_000))


def test_speeds_change_the_length_and_masks_hide(utterances):
    slow = _batches(utterances, AugmentConfig(frequency_masks=0, time_masks=0, speeds=(0.9,)))
    everything = torch.arange(5)
    plain = _batches(utterances)[everything]
    lengths = [LogMel().frames(-(-round(seconds * 16_000) * 10 // 9)) for seconds in slow.seconds]
    assert slow[everything]["lengths"].tolist() == lengths
    assert torch.equal(_batches(utterances, PLAIN)[everything]["features"], plain["features"])
    masked = _batches(utterances, AugmentConfig(time_share=0.3))[everything]["features"]
    hidden = (masked == 0) & (plain["features"] != 0)
    assert hidden.any()
    assert torch.equal(masked[~hidden], plain["features"][~hidden])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_depend_on_the_position_alone(utterances, workers):
    def epoch(start: int) -> list[dict[str, torch.Tensor]]:
        batches = _batches(utterances, AugmentConfig(speeds=(0.9, 1.0, 1.1)))
        stream = Loader(batches, 2, seed=3, shuffle=True, workers=workers).stream(1, start)
        return [next(stream) for _ in range(3 - start)]

    from core.training import preserved

    with preserved():
        whole, rest = epoch(0), epoch(1)
    for one, two in zip(whole[1:], rest, strict=True):
        assert torch.equal(one["features"], two["features"])
        assert torch.equal(one["index"], two["index"])
    assert len({batch["features"].shape[1] for batch in whole}) > 1


def test_one_target_for_each_utterance(utterances):
    with pytest.raises(InputError, match="5 utterances with 1 targets"):
        SpeechBatches(utterances, [[1]], AudioStore(), LogMel())
