from __future__ import annotations

import random

import jiwer
import numpy as np
import pytest

from apps.asr.metrics import FEWEST_SPEAKERS, Edits, Step, alignment, compared, edits, error_rate, scores
from core.errors import InputError


def random_text(draw: random.Random, words: int, alphabet: str = "abcd") -> str:
    return " ".join("".join(draw.choices(alphabet, k=draw.randint(1, 3))) for _ in range(words))


def distance(reference: str | list[str], hypothesis: str | list[str]) -> int:
    """Levenshtein by its recursion, row by row."""
    row = list(range(len(hypothesis) + 1))
    for i, a in enumerate(reference, start=1):
        before, row = row, [i]
        for j, b in enumerate(hypothesis, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def test_alignments_are_shortest_and_whole() -> None:
    draw = random.Random(0)
    for _ in range(400):
        a, b = ("".join(draw.choices("abc", k=draw.randint(0, 12))) for _ in range(2))
        steps = alignment(a, b)
        assert "".join(step.reference or "" for step in steps) == a
        assert "".join(step.hypothesis or "" for step in steps) == b
        assert all(step != Step(None, None) for step in steps)
        found = edits(a, b)
        assert found.errors == distance(a, b) == sum(step.kind != "hit" for step in steps)
        assert found.symbols == len(a)
        assert found.hits + found.substitutions + found.insertions == len(b)


def test_long_sequences_beyond_a_machine_word() -> None:
    draw = random.Random(1)
    for size in (63, 64, 65, 130, 300):
        a = draw.choices("abcdefgh", k=size)
        b = [symbol for symbol in a if draw.random() > 0.1]
        b.insert(draw.randrange(len(b)), "z")
        assert edits(a, b).errors == distance(a, b)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("", "", Edits()),
        ("a b", "", Edits(deletions=2)),
        ("", "a b", Edits(insertions=2)),
        ("the cat sat", "the cat sat", Edits(hits=3)),
        ("the cat sat", "the sat", Edits(hits=2, deletions=1)),
        ("the cat sat", "the fat cat sad", Edits(hits=2, substitutions=1, insertions=1)),
        ("a b c d", "b c d e", Edits(hits=3, deletions=1, insertions=1)),
    ],
)
def test_cases_by_hand(reference: str, hypothesis: str, expected: Edits) -> None:
    assert edits(reference.split(), hypothesis.split()) == expected


def test_agrees_with_jiwer_over_a_corpus() -> None:
    draw = random.Random(2)
    references = [random_text(draw, draw.randint(1, 12)) for _ in range(120)]
    hypotheses = [
        " ".join(w for w in r.split() if draw.random() > 0.2) + " " + random_text(draw, 2) for r in references
    ]
    found = scores(references, hypotheses)
    assert found.metrics["wer"].value == pytest.approx(100 * jiwer.wer(references, hypotheses), abs=1e-12)
    assert found.metrics["cer"].value == pytest.approx(100 * jiwer.cer(references, hypotheses), abs=1e-12)
    theirs = jiwer.process_words(references, hypotheses)
    assert found.words.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert found.words.symbols == sum(map(len, theirs.references))
    assert (
        error_rate(edits(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True))
        == found.metrics["wer"].value
    )


def test_rates_are_of_sums_not_means_of_rates() -> None:
    found = scores(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"])
    assert found.metrics["wer"].value == 10.0
    assert found.correct == 1
    assert error_rate([Edits(hits=9), Edits(substitutions=1)]) == 10.0


def test_characters_include_the_spaces() -> None:
    found = scores(["ab  cd "], [" abcd"])
    assert found.metrics["cer"].value == 20.0
    assert found.characters == Edits(hits=4, deletions=1)


def test_without_a_reference_there_is_no_rate() -> None:
    found = scores(["one two", "", " "], ["one", "um er", ""], speakers=["a", "b", "b"], seconds=[1.0, 1.0, 1.0])
    assert found.metrics["wer"].value == 50.0
    assert (found.utterances, found.silent, found.silent_insertions) == (1, 2, 2)
    assert [group.name for group in found.speakers] == ["a"]
    assert found.lengths[0].utterances == 1
    assert found.confusions.insertions == ()
    assert np.isnan(Edits(insertions=3).rate)
    assert np.isnan(error_rate([Edits(insertions=3)]))


def corpus(utterances: int, speakers: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Speakers who differ in how badly they are understood."""
    draw = random.Random(seed)
    share = [draw.random() / 2 for _ in range(speakers)]
    names = [f"s{draw.randrange(speakers)}" for _ in range(utterances)]
    references = [random_text(draw, draw.randint(2, 10)) for _ in range(utterances)]
    hypotheses = [
        " ".join(word if draw.random() > share[int(name[1:])] else "z" for word in text.split())
        for name, text in zip(names, references, strict=True)
    ]
    return references, hypotheses, names


def test_speakers_widen_the_interval_where_there_are_enough() -> None:
    references, hypotheses, names = corpus(300, 20, seed=3)
    alone, clustered = scores(references, hypotheses), scores(references, hypotheses, speakers=names)
    assert (alone.units, clustered.units) == ("utterances", "speakers")
    assert (alone.metrics["wer"].units, clustered.metrics["wer"].units) == (300, 20)
    assert alone.metrics["wer"].value == clustered.metrics["wer"].value
    assert clustered.metrics["wer"].high - clustered.metrics["wer"].low > 1.5 * (
        alone.metrics["wer"].high - alone.metrics["wer"].low
    )
    few = scores(references, hypotheses, speakers=[name[:2] for name in names])
    assert len({name[:2] for name in names}) == FEWEST_SPEAKERS
    assert few.units == "speakers"
    unknown = scores(references, hypotheses, speakers=[None, *names[1:]])
    assert unknown.units == "utterances"
    two = scores(references, hypotheses, speakers=[str(int(name[1:]) % 2) for name in names])
    assert (two.units, len(two.speakers)) == ("utterances", 2)


def test_the_interval_is_that_of_a_ratio_of_sums() -> None:
    references, hypotheses, _ = corpus(500, 1, seed=4)
    found = scores(references, hypotheses)
    counts = [edits(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    errors, symbols = (np.array([getattr(count, key) for count in counts]) for key in ("errors", "symbols"))
    rate = errors.sum() / symbols.sum()
    # linearised: the standard error of a ratio estimator
    expected = 100 * np.sqrt(np.sum((errors - rate * symbols) ** 2)) / symbols.sum()
    assert found.metrics["wer"].error == pytest.approx(expected, rel=0.1)
    assert found.metrics["wer"].low == pytest.approx(100 * rate - 1.96 * expected, abs=0.5)
    assert found.metrics["wer"].high == pytest.approx(100 * rate + 1.96 * expected, abs=0.5)


def test_parts_sum_to_the_whole() -> None:
    references, hypotheses, names = corpus(200, 5, seed=5)
    seconds = [0.4 * len(text) for text in references]
    found = scores(references, hypotheses, speakers=names, seconds=seconds)
    for parts in (found.speakers, found.lengths):
        assert sum((part.words for part in parts), Edits()) == found.words
        assert sum((part.characters for part in parts), Edits()) == found.characters
        assert sum(part.utterances for part in parts) == 200
    rates = [part.words.rate for part in found.speakers]
    assert rates == sorted(rates, reverse=True)
    by_hand = [(r, h) for r, h, name in zip(references, hypotheses, names, strict=True) if name == "s2"]
    expected = 100 * jiwer.wer([r for r, _ in by_hand], [h for _, h in by_hand])
    assert next(p for p in found.speakers if p.name == "s2").words.rate == pytest.approx(expected)


def test_bins_of_length_and_their_edges() -> None:
    seconds = [0.0, 1.99, 2.0, 3.0, 7.9, 100.0]
    found = scores(["a"] * 6, ["a"] * 6, seconds=seconds)
    assert [(part.name, part.utterances) for part in found.lengths] == [
        ("0 to 2 s", 2),
        ("2 to 4 s", 2),
        ("4 to 8 s", 1),
        ("from 16 s", 1),
    ]
    assert scores(["a"], ["a"]).lengths == ()


def test_the_commonest_confusions() -> None:
    references = ["the cat", "the cat", "a cat", "a b"]
    hypotheses = ["the hat", "the hat", "a bat", "a"]
    found = scores(references, hypotheses, commonest=1).confusions
    assert found.substitutions == (("cat", "hat", 2),)
    assert found.deletions == (("b", 1),)
    found = scores([*references, "x y", "x y"], [*hypotheses, "x y um", "x er y"]).confusions
    assert found.substitutions == (("cat", "hat", 2), ("cat", "bat", 1))
    assert found.insertions == (("er", 1), ("um", 1))


def test_two_systems_on_the_same_utterances() -> None:
    references, worse, names = corpus(200, 20, seed=6)
    draw = random.Random(7)
    better = [r if draw.random() < 0.5 else h for r, h in zip(references, worse, strict=True)]
    found = compared(references, better, worse, speakers=names)
    for name, metric in (("wer", jiwer.wer), ("cer", jiwer.cer)):
        expected = 100 * (metric(references, better) - metric(references, worse))
        assert found[name].value == pytest.approx(expected, abs=1e-9)
        assert found[name].high < 0
        assert found[name].p < 0.01
    assert found["wer"].units == 20
    same = compared(references, worse, worse)["wer"]
    assert (same.value, same.p) == (0.0, 1.0)
    silent = compared([*references, ""], [*better, "um"], [*worse, ""])
    assert silent["wer"].value == pytest.approx(found["wer"].value)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"as many, got \[2, 1\]"):
        scores(["a", "b"], ["a"])
    with pytest.raises(InputError, match="as many"):
        scores(["a"], ["a"], seconds=[])
    with pytest.raises(InputError, match="no utterance has a reference"):
        scores(["", " "], ["a", "b"])
    with pytest.raises(InputError, match="as many"):
        compared(["a"], ["a"], [])
