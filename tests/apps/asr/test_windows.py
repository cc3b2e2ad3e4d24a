from __future__ import annotations

import pytest
import torch

from apps.asr.pieces import batches, pieces, pools
from apps.asr.windows import FRAME, GRID, windows
from core.errors import InputError


@pytest.mark.parametrize("samples", [0, 1, GRID, 16_000 * 30, 16_000 * 30 + 1, 16_000 * 61, 16_000 * 3600 + 77])
def test_kept_frames_are_those_of_the_whole_recording_in_order(samples):
    spans = windows(samples, length=30.0, context=4.8)
    kept = []
    for window in spans:
        assert window.start % GRID == 0
        last = (samples - window.start) // FRAME if window.last is None else window.last
        assert window.start + last * FRAME <= max(samples, window.stop)
        kept += range(window.start // FRAME + window.first, window.start // FRAME + last)
    assert kept == list(range(samples // FRAME))
    assert spans[-1].last is None
    assert spans[-1].stop >= samples


def test_every_kept_frame_has_its_context_and_no_window_is_longer():
    samples, size, edge = 16_000 * 200 + 123, 16_000 * 20, round(3.2 * 16_000)
    spans = windows(samples, length=20.0, context=3.2)
    assert all(window.stop - window.start == size for window in spans)
    for window in spans[1:]:
        assert window.first * FRAME >= edge
    for window in spans[:-1]:
        assert size - window.last * FRAME >= edge


@pytest.mark.parametrize(("length", "context"), [(10, 5), (10, 6), (1, -0.1), (0.08, 0.04), (0, 0)])
def test_a_window_without_a_middle_is_refused(length, context):
    with pytest.raises(InputError, match="no middle"):
        windows(16_000 * 60, length=float(length), context=float(context))


def test_pieces_are_read_when_asked_for_and_hold_their_part():
    audio = torch.arange(16_000 * 20, dtype=torch.float32)
    asked = []

    def sources():
        for index in range(2):
            asked.append(index)
            yield audio

    read = pieces(sources(), window=8.0, context=1.6)
    spans = windows(len(audio), length=8.0, context=1.6)
    for span in spans:
        piece = next(read)
        assert torch.equal(piece.audio, audio[span.start : span.stop])
    assert piece.ends == len(audio)
    assert asked == [0]


def test_padding_goes_around_the_recording_and_not_around_its_windows():
    audio = torch.ones(16_000 * 20)
    plain = list(pieces([audio], window=8.0, context=1.6))
    padded = list(pieces([audio], window=8.0, context=1.6, pad_seconds=0.16))
    pad = 2560
    assert [len(two.audio) - len(one.audio) for one, two in zip(plain, padded, strict=True)] == [pad, 0, 0, pad]
    assert padded[0].audio[:pad].sum() == padded[-1].audio[-pad:].sum() == 0
    assert padded[0].last == plain[0].last + pad // FRAME
    assert padded[-1].ends == len(audio)


def test_batches_hold_everything_once_within_the_limit():
    lengths = [5, 70, 3, 3, 3, 9, 1, 40, 2]
    found = batches(lengths, 20)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in found)
    assert len(found) < len(lengths)


def test_pools_keep_the_order():
    read = list(pieces([torch.zeros(n) for n in (5, 4, 3, 20, 1)]))
    assert [[len(piece.audio) for piece in pool] for pool in pools(read, 9)] == [[5, 4], [3], [20], [1]]


@pytest.mark.untyped
def test_samples_of_another_form_are_refused():
    for wrong in (torch.zeros(2, 100), torch.zeros(100, dtype=torch.int16)):
        with pytest.raises(InputError, match="give"):
            next(pieces([wrong]))
