from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from apps.asr.metrics import edits, error_rate
from apps.asr.task import SpeechTask, ctc_loss
from apps.asr.tokenizer import CharTokenizer


def by_paths(log_probabilities: torch.Tensor, target: list[int], blank: int) -> torch.Tensor:
    """Minus the logarithm of the sum over all paths that collapse to the target."""
    frames, outputs = log_probabilities.shape
    total = []
    for path in itertools.product(range(outputs), repeat=frames):
        collapsed = [token for token, _ in itertools.groupby(path) if token != blank]
        if collapsed == target:
            total.append(sum(log_probabilities[t, token] for t, token in enumerate(path)))
    return -torch.logsumexp(torch.stack(total), 0)


@pytest.mark.parametrize("blank", [0, 2])
def test_the_loss_of_each_utterance_is_the_sum_over_its_paths(blank):
    torch.manual_seed(0)
    letters = [token for token in range(3) if token != blank]
    targets = [[letters[0]], [letters[1], letters[1]], [], [letters[0], letters[1]]]
    lengths = torch.tensor([3, 5, 2, 4])
    logits = torch.randn(4, 5, 3)
    found = ctc_loss(
        logits,
        lengths,
        torch.tensor([token for one in targets for token in one]),
        torch.tensor([len(one) for one in targets]),
        blank,
    )
    for row, target in enumerate(targets):
        scores = logits[row, : lengths[row]].log_softmax(-1)
        torch.testing.assert_close(found[row], by_paths(scores, target, blank), atol=1e-4, rtol=1e-5)


def test_what_has_no_alignment_costs_nothing_and_moves_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    found = ctc_loss(logits, torch.tensor([3, 3]), torch.tensor([1, 1, 1, 2]), torch.tensor([3, 1]), 0)
    assert found[0] == 0
    assert found[1] > 0
    found.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_the_loss_is_computed_in_float32_under_autocast():
    logits = torch.randn(1, 4, 5)
    arguments = (torch.tensor([4]), torch.tensor([1, 2]), torch.tensor([2]), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ctc_loss(logits, *arguments)
    assert found.dtype == torch.float32
    assert torch.equal(found, ctc_loss(logits, *arguments))


class Given(nn.Module):
    """Gives the features as logits."""

    def forward(self, features, lengths):
        return features, lengths


def batch(rows, targets, size):
    """Logits that spell ``rows``, each with its targets."""
    frames = max(map(len, rows))
    features = torch.zeros(len(rows), frames, size)
    for index, row in enumerate(rows):
        features[index, torch.arange(len(row)), torch.tensor(row)] = 9.0
    return {
        "features": features,
        "lengths": torch.tensor([len(row) for row in rows]),
        "targets": torch.tensor([token for one in targets for token in one]),
        "target_lengths": torch.tensor([len(one) for one in targets]),
        "index": torch.arange(len(rows)),
    }


def test_training_averages_over_utterances_and_not_over_tokens():
    tokenizer = CharTokenizer.fit(["ab c"])
    task = SpeechTask(Given(), tokenizer)
    made = batch([[1, 0, 2, 0], [2, 2]], [[1, 2, 3], [1]], tokenizer.size)
    each = ctc_loss(made["features"], made["lengths"], made["targets"], made["target_lengths"], tokenizer.blank)
    assert task.training_loss(made)["loss"] == each.mean()


def test_evaluation_is_of_the_whole_split_and_in_percent():
    tokenizer = CharTokenizer.fit(["ab c"])
    task = SpeechTask(Given(), tokenizer)
    said = ["ab c", "a", "c b a"]
    heard = ["ab c", "b", "c a"]
    paths = [[token for letter in tokenizer.encode(text) for token in (letter, tokenizer.blank)] for text in heard]
    targets = [tokenizer.encode(text) for text in said]
    batches = [batch(paths[:2], targets[:2], tokenizer.size), batch(paths[2:], targets[2:], tokenizer.size)]
    found = task.evaluate(batches)
    assert found["wer"] == error_rate(edits(a.split(), b.split()) for a, b in zip(said, heard, strict=True))
    assert found["cer"] == error_rate(edits(a, b) for a, b in zip(said, heard, strict=True))
    assert found["wer"] == pytest.approx(100 * 2 / 6)
    losses = torch.cat([task._losses(one)[0] for one in batches])
    assert found["loss"] == pytest.approx(float(losses.double().mean()), rel=1e-6)
