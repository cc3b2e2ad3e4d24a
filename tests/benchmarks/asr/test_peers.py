"""The peers are what the results say they are: as large as ours, counted in full, deaf to padding."""

import pytest
import torch

pytest.importorskip("torchaudio")
pytest.importorskip("speechbrain")

from apps.asr.subsampling import subsampled_length
from benchmarks.asr.peers import PEERS, Size, matched, parameters
from benchmarks.common.counting import multiply_adds

BINS, OUTPUTS = 80, 32
SIZE = Size(width=24, layers=3, heads=4, hidden=96, kernel=7, dropout=0.1)


def build(peer, size=SIZE):
    torch.manual_seed(0)
    return PEERS[peer](BINS, OUTPUTS, size).eval()


def blocks_by_hand(peer, batch, tokens, size):
    """Multiply-adds of the encoder alone."""
    d, n, positions = size.width, tokens, 2 * tokens - 1
    feedforwards, pointwise, depthwise = 4 * d * size.hidden * n, 3 * d * d * n, size.kernel * d * n
    attention = 4 * d * d * n + 2 * n * n * d
    each = feedforwards + pointwise + depthwise + attention
    if peer == "speechbrain":
        return size.layers * (batch * (each + n * positions * d) + positions * d * d)
    return size.layers * batch * each


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("batch", "frames"), [(1, 101), (3, 58)])
def test_every_multiply_add_of_a_peer_is_counted(peer, training, batch, frames):
    model = build(peer).train(training)
    features, lengths = torch.randn(batch, frames, BINS), torch.full((batch,), frames)
    tokens = int(subsampled_length(lengths)[0])
    front = multiply_adds(lambda: model.subsampling(features, lengths))
    found = multiply_adds(lambda: model(features, lengths))
    assert found - front - batch * tokens * SIZE.width * OUTPUTS == blocks_by_hand(peer, batch, tokens, SIZE)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("wanted", [40_000, 90_000])
def test_the_hidden_width_brings_the_parameters_nearest(peer, wanted):
    size = matched(peer, BINS, OUTPUTS, SIZE, wanted)
    found = parameters(build(peer, size))
    others = (parameters(build(peer, Size(**{**vars(size), "hidden": size.hidden + by}))) for by in (-8, 8))
    assert all(abs(found - wanted) <= abs(other - wanted) for other in others)


@pytest.mark.parametrize("peer", PEERS)
def test_attention_does_not_look_at_padding(peer):
    # A kernel of one tap: as released, their convolutions do reach into the padding.
    model = build(peer, Size(**{**vars(SIZE), "kernel": 1}))
    features = torch.randn(2, 90, BINS)
    with torch.no_grad():
        logits, lengths = model(features, torch.tensor([90, 61]))
        alone, count = model(features[1:, :61], torch.tensor([61]))
    assert logits.shape[1] == 22
    assert lengths.tolist() == [22, 15]
    torch.testing.assert_close(logits[1, : count[0]], alone[0])


@pytest.mark.parametrize("peer", PEERS)
def test_padding_at_the_end_of_a_whole_batch_is_kept(peer):
    model = build(peer)
    with torch.no_grad():
        logits, lengths = model(torch.randn(2, 90, BINS), torch.tensor([40, 61]))
    assert logits.shape == (2, 22, OUTPUTS)
    assert lengths.tolist() == [10, 15]
