from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.asr.decoding import Hypothesis, _search, align, greedy, prefix_beam, required_frames, words
from apps.asr.tokenizer import CharTokenizer, SentencePieceTokenizer, Tokenizer
from core.errors import InputError

Text = tuple[int, ...]
CASES = [(1, 2), (3, 3), (4, 3), (5, 3), (6, 2), (4, 4)]


def logits_of(frames: int, size: int, seed: int) -> Tensor:
    return 2 * torch.randn(frames, size, generator=torch.Generator().manual_seed(seed))


def said(path: tuple[int, ...], blank: int) -> Text:
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def every_path(logits: Tensor, blank: int) -> dict[Text, list[tuple[float, tuple[int, ...]]]]:
    """Each text with the log-probability of each of its paths, by enumeration."""
    scores = logits.double().log_softmax(-1)
    found: dict[Text, list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        found[said(path, blank)].append((sum(float(scores[t, token]) for t, token in enumerate(path)), path))
    return found


def total(paths: list[tuple[float, tuple[int, ...]]]) -> float:
    return math.log(math.fsum(math.exp(score) for score, _ in paths))


def one(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits[None], torch.tensor([len(logits)])


@pytest.mark.parametrize(("frames", "size"), CASES)
@pytest.mark.parametrize("blank", [0, 1])
def test_greedy_is_the_best_path(frames: int, size: int, blank: int) -> None:
    logits = logits_of(frames, size, seed=frames * 10 + size)
    score, path = max(item for paths in every_path(logits, blank).values() for item in paths)
    found = greedy(*one(logits), blank)[0]
    assert found.tokens == said(path, blank)
    assert found.score == pytest.approx(score, abs=1e-5)


def test_spans_and_confidences_of_a_path() -> None:
    probability = torch.tensor(
        [[0.1, 0.9, 0.0], [0.5, 0.4, 0.1], [0.3, 0.7, 0.0], [0.1, 0.4, 0.5], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]]
    )
    found = greedy(*one(probability.clamp(min=1e-9).log()), 0)[0]
    assert found.tokens == (1, 1, 2, 1)
    assert found.spans == ((0, 1), (2, 3), (3, 5), (5, 6))
    assert found.confidence == pytest.approx((0.9, 0.7, math.sqrt(0.5 * 0.8), 1.0), abs=1e-6)
    assert found.score == pytest.approx(math.log(0.9 * 0.5 * 0.7 * 0.5 * 0.8), abs=1e-5)
    cut = greedy(probability.clamp(min=1e-9).log()[None], torch.tensor([4]), 0)[0]
    assert cut.spans == ((0, 1), (2, 3), (3, 4))


def test_greedy_of_many_is_greedy_of_each_whatever_the_padding() -> None:
    lengths = torch.tensor([0, 1, 7, 40, 33, 0])
    logits = torch.stack([logits_of(40, 5, seed) for seed in range(6)])
    expected = [greedy(*one(row[:n]), 2)[0] for row, n in zip(logits, lengths.tolist(), strict=True)]
    for row, n in zip(logits, lengths.tolist(), strict=True):
        row[n:] = 100 * torch.randn(40 - n, 5)
    found = greedy(logits, lengths, 2)
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.spans for h in found] == [h.spans for h in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.confidence == pytest.approx(b.confidence)
        assert a.score == pytest.approx(b.score)
    scores = logits.log_softmax(-1)
    for row, hypothesis in enumerate(found):
        for token, (start, stop), sure in zip(hypothesis.tokens, hypothesis.spans, hypothesis.confidence, strict=True):
            assert sure == pytest.approx(float(scores[row, start:stop, token].mean().exp()), abs=1e-6)


@pytest.mark.parametrize("frames", [0, 3])
def test_no_frames_no_tokens(frames: int) -> None:
    empty = Hypothesis((), (), (), 0.0)
    logits, lengths = torch.randn(2, frames, 4), torch.zeros(2, dtype=torch.int64)
    assert greedy(logits, lengths, 0) == [empty, empty]
    assert prefix_beam(logits, lengths, 0) == [empty, empty]
    assert greedy(torch.zeros(0, frames, 4), torch.zeros(0, dtype=torch.int64), 0) == []


@pytest.mark.parametrize(("frames", "size"), CASES)
@pytest.mark.parametrize("blank", [0, 1])
def test_unpruned_beam_equals_exhaustive_search(frames: int, size: int, blank: int) -> None:
    for seed in range(4):
        logits = logits_of(frames, size, seed)
        texts = {text: total(paths) for text, paths in every_path(logits, blank).items()}
        best = max(texts, key=lambda text: texts[text])
        for beam in (None, len(texts)):
            assert _search(logits.double().log_softmax(-1).numpy(), blank, beam) == best
            found = prefix_beam(*one(logits), blank, beam=beam)[0]
            assert found.tokens == best
            assert found.score == pytest.approx(texts[best], abs=1e-5)


def test_a_narrow_beam_is_exact_about_its_text_and_no_worse_than_greedy() -> None:
    better = 0
    for seed in range(20):
        logits = logits_of(30, 6, seed) / 2
        narrow, wide = (prefix_beam(*one(logits), 0, beam=beam)[0] for beam in (2, 64))
        for found in (narrow, wide):
            assert found.score == pytest.approx(-float(loss_of(logits, found.tokens, 0)), abs=1e-4)
            assert found.score >= -float(loss_of(logits, greedy(*one(logits), 0)[0].tokens, 0)) - 1e-4
            assert len(found.spans) == len(found.confidence) == len(found.tokens)
        better += wide.score > narrow.score + 1e-3
    assert better > 3


@pytest.mark.parametrize("beam", [1, 2, 3, 5, 8])
def test_the_search_counts_a_text_that_comes_back_as_the_same(beam: int) -> None:
    # the plain form of the search, with texts as keys: what was dropped and found again is one text
    for seed in range(10):
        logits = logits_of(12, 4, seed) / 2
        scores = logits.double().log_softmax(-1).numpy()
        assert _search(scores, 0, beam) == plain_search(scores.tolist(), 0, beam)


def plain_search(scores: list[list[float]], blank: int, beam: int) -> Text:
    kept: dict[Text, tuple[float, float]] = {(): (1.0, 0.0)}
    for frame in scores:
        following: dict[Text, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for text, (in_blank, in_token) in kept.items():
            following[text][0] += (in_blank + in_token) * math.exp(frame[blank])
            for token, score in enumerate(frame):
                if token != blank and text and text[-1] == token:
                    following[text][1] += in_token * math.exp(score)
                    following[(*text, token)][1] += in_blank * math.exp(score)
                elif token != blank:
                    following[(*text, token)][1] += (in_blank + in_token) * math.exp(score)
        best = sorted(following.items(), key=lambda item: -sum(item[1]))[:beam]
        kept = {text: (a, b) for text, (a, b) in best}
    return max(kept, key=lambda text: sum(kept[text]))


def loss_of(logits: Tensor, tokens: Text, blank: int) -> Tensor:
    scores = logits.log_softmax(-1)[:, None]
    targets, sizes = torch.tensor(tokens, dtype=torch.int64), torch.tensor([len(tokens)])
    return F.ctc_loss(scores, targets, torch.tensor([len(logits)]), sizes, blank=blank, reduction="none")[0]


@pytest.mark.parametrize(("frames", "size"), CASES)
@pytest.mark.parametrize("blank", [0, 1])
def test_the_ctc_loss_is_the_sum_over_paths(frames: int, size: int, blank: int) -> None:
    logits = logits_of(frames, size, seed=3)
    for text, paths in every_path(logits, blank).items():
        assert float(loss_of(logits, text, blank)) == pytest.approx(-total(paths), abs=1e-4)


@pytest.mark.parametrize(("frames", "size"), CASES)
@pytest.mark.parametrize("blank", [0, 1])
def test_alignment_equals_the_best_path_of_the_text(frames: int, size: int, blank: int) -> None:
    logits = logits_of(frames, size, seed=5)
    for text, paths in every_path(logits, blank).items():
        score, path = max(paths)
        found = align(logits, text, blank)
        assert found.tokens == text
        assert found.score == pytest.approx(score, abs=1e-5)
        named = [None if token == blank else token for token in path]
        for token, (start, stop) in zip(found.tokens, found.spans, strict=True):
            assert set(named[start:stop]) == {token}
            named[start:stop] = [None] * (stop - start)
        assert set(named) <= {None}


def test_infeasible_alignment_is_refused_and_only_that() -> None:
    alphabet = (1, 2)
    for length in range(5):
        for text in itertools.product(alphabet, repeat=length):
            needed = required_frames(text)
            reachable = [
                frames
                for frames in range(8)
                if any(said(path, 0) == text for path in itertools.product((0, *alphabet), repeat=frames))
            ]
            if length < 4:
                assert min(reachable) == needed
            assert align(torch.zeros(needed, 3), text, 0).tokens == text
            if needed:
                with pytest.raises(InputError, match=f"{needed - 1} frames cannot hold"):
                    align(torch.zeros(needed - 1, 3), text, 0)


# --- words ------------------------------------------------------------------------------------------------------------

TEXTS = ["the cat sat on the mat", "the dog sat", "a cat", "on the hat", "that is that"] * 3
TOKENIZERS = [
    pytest.param(CharTokenizer.fit(TEXTS), id="char"),
    pytest.param(SentencePieceTokenizer.fit(TEXTS, 24), id="sentencepiece"),
]


def hypothesis_of(tokens: list[int], seed: int) -> Hypothesis:
    draw = random.Random(seed)
    spans, frame = [], draw.randint(0, 3)
    for _ in tokens:
        stop = frame + draw.randint(1, 3)
        spans.append((frame, stop))
        frame = stop + draw.choice([0, 0, 1, 9])
    return Hypothesis(tuple(tokens), tuple(spans), tuple(draw.random() for _ in tokens), -1.0)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_words_are_the_decoded_text_in_order_of_time(tokenizer: Tokenizer) -> None:
    for seed in range(100):
        draw = random.Random(seed)
        tokens = draw.choices(range(1, tokenizer.size), k=draw.randint(0, 12))
        hypothesis = hypothesis_of(tokens, seed)
        found = words(hypothesis, tokenizer, 0.04, 0.03)
        assert " ".join(word.text for word in found) == tokenizer.decode(tokens)
        for word in found:
            assert word.start < word.stop
            assert word.confidence in hypothesis.confidence
        for word, following in itertools.pairwise(found):
            assert word.stop <= following.start + 1e-9


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_times_are_those_of_the_frames(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("the mat")
    spans = tuple((10 * k, 10 * k + 2) for k in range(len(tokens)))
    confidence = tuple(1 - 0.01 * k for k in range(len(tokens)))
    hypothesis = Hypothesis(tuple(tokens), spans, confidence, -1.0)
    pieces = [tokenizer.pieces[token] for token in tokens]
    text = "".join(pieces)
    letters = [k for k, piece in enumerate(pieces) for character in piece if character != " "]
    first, last = letters[:3], letters[3:]
    assert text.split() == ["the", "mat"]
    raw = words(hypothesis, tokenizer, 0.04, 0.03, extension=0.0)
    for word, name, group in zip(raw, ("the", "mat"), (first, last), strict=True):
        assert word.text == name
        assert word.start == pytest.approx(0.03 + (10 * group[0] - 0.5) * 0.04)
        assert word.stop == pytest.approx(0.03 + (10 * group[-1] + 1.5) * 0.04)
        assert word.confidence == confidence[group[-1]]
    moved = words(hypothesis, tokenizer, 0.04, 0.03, extension=0.1)
    assert [word.start for word in moved] == [word.start for word in raw]
    assert [word.stop for word in moved] == pytest.approx([word.stop + 0.1 for word in raw])
    far = words(hypothesis, tokenizer, 0.04, 0.03, extension=1e3)
    assert far[0].stop == raw[1].start, "never beyond the next word"


def test_refuses_a_beam_of_nothing() -> None:
    with pytest.raises(InputError, match="at least 1"):
        prefix_beam(torch.zeros(1, 2, 3), torch.tensor([2]), 0, beam=0)
    with pytest.raises(InputError, match="beyond the padded length"):
        greedy(torch.zeros(1, 2, 3), torch.tensor([3]), 0)
