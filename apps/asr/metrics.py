"""Word and character error rates of a corpus, with intervals, and where the errors are.

    rate = 100 (S + D + I) / N

S, D and I are the substitutions, deletions and insertions of a shortest alignment of hypothesis and reference, N the
symbols of the reference, each summed over all utterances before dividing: a mean of the utterances' own rates would
count a short one as much as a long one. Words are what stands between spaces; characters include the spaces. Texts
are taken as they are: normalise both by one rule first.

An utterance without a reference (silence) has no rate. It stays out of all of the above, and what is inserted there is
reported apart.

Intervals resample whole speakers where there are at least ten (their utterances resemble one another), else utterances
(Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, ICASSP 2004).

The alignment is bit-parallel (Hyyrö, Explaining and extending the bit-parallel approximate string matching algorithm of
Myers, 2001): a column of the dynamic programme is two whole numbers, whose bits say where it rises and falls. Of
equally short alignments it is the one that, read from the end, pairs symbols with each other as long as it can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from core.application import Measure, Scored
from core.errors import InputError
from core.evaluation.bootstrap import Difference, Estimate, bootstrap, paired
from core.evaluation.metrics import Metric

LENGTHS = (0.0, 2.0, 4.0, 8.0, 16.0, float("inf"))
"""Seconds between which utterances are counted together."""
FEWEST_SPEAKERS = 10


KINDS = ("hit", "substitution", "deletion", "insertion")


@dataclass(frozen=True)
class Step:
    """One step of an alignment; None stands for nothing on that side."""

    reference: str | None
    hypothesis: str | None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if self.reference is None:
            return "insertion"
        if self.hypothesis is None:
            return "deletion"
        return "hit" if self.reference == self.hypothesis else "substitution"


@dataclass(frozen=True)
class Edits:
    """What turns a reference into a hypothesis, counted.

    >>> Edits(8, 1, 1, 2).rate
    40.0
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def symbols(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; nan of an empty one."""
        return 100.0 * self.errors / self.symbols if self.symbols else float("nan")

    def __add__(self, other: Edits) -> Edits:
        return Edits(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def alignment(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Step]:
    """A shortest alignment of two sequences of symbols, in order.

    >>> [step.kind for step in alignment("the cat sat".split(), "a cat sat down".split())]
    ['substitution', 'hit', 'hit', 'insertion']
    """
    columns = _columns(reference, hypothesis)
    steps = []
    i, j = len(reference), len(hypothesis)
    while i and j:
        diagonal, rising = columns[j - 1]
        bit = 1 << (i - 1)
        if reference[i - 1] == hypothesis[j - 1] or not diagonal & bit:
            i, j = i - 1, j - 1
            steps.append(Step(reference[i], hypothesis[j]))
        elif rising & bit:
            i -= 1
            steps.append(Step(reference[i], None))
        else:
            j -= 1
            steps.append(Step(None, hypothesis[j]))
    steps += [Step(symbol, None) for symbol in reversed(reference[:i])]
    steps += [Step(None, symbol) for symbol in reversed(hypothesis[:j])]
    return steps[::-1]


def _columns(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """For each symbol of the hypothesis, as bits over the reference's: where the distance to the cell diagonally before
    is 0, and where the distance rises by 1 from the cell above.
    """
    places: dict[str, int] = {}
    for position, symbol in enumerate(reference):
        places[symbol] = places.get(symbol, 0) | 1 << position
    full = (1 << len(reference)) - 1
    rising, falling = full, 0
    columns = []
    for symbol in hypothesis:
        match = places.get(symbol, 0)
        diagonal = ((((match & rising) + rising) ^ rising) | match | falling) & full
        right_rising = (falling | ~(diagonal | rising)) & full
        right_falling = diagonal & rising
        right_rising = (right_rising << 1 | 1) & full
        right_falling = (right_falling << 1) & full
        rising = (right_falling | ~(diagonal | right_rising)) & full
        falling = right_rising & diagonal
        columns.append((diagonal, rising))
    return columns


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """The counts of a shortest alignment: of words, give lists of words; of characters, give text.

    >>> edits("kitten", "sitting")
    Edits(hits=4, substitutions=2, deletions=0, insertions=1)
    """
    return _counted(alignment(reference, hypothesis))


def _counted(steps: Iterable[Step]) -> Edits:
    kinds = Counter(step.kind for step in steps)
    return Edits(*(kinds[kind] for kind in KINDS))


def error_rate(counts: Iterable[Edits]) -> float:
    """The rate of a corpus in percent; utterances without a reference stay out, and nan without any other.

    >>> error_rate([Edits(hits=9), Edits(substitutions=1), Edits(insertions=5)])
    10.0
    """
    return sum((count for count in counts if count.symbols), Edits()).rate


# --- a whole corpus ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Part of a corpus: one speaker, or utterances of like length.

    Attributes:
        name: the speaker, or the seconds.
        utterances: those with a reference.
        words, characters: their edits.
    """

    name: str
    utterances: int
    words: Edits
    characters: Edits


@dataclass(frozen=True)
class Confusions:
    """How often which word was taken for which, commonest first; equal counts in alphabetical order."""

    substitutions: tuple[tuple[str, str, int], ...]
    insertions: tuple[tuple[str, int], ...]
    deletions: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Scores:
    """What `scores` finds.

    Attributes:
        metrics: "wer" and "cer", error rates in percent with 95 % intervals.
        units: what was resampled for them, "speakers" or "utterances".
        words, characters: edits of all utterances with a reference.
        utterances: how many those are.
        correct: how many of them have no error.
        silent: utterances without a reference.
        silent_insertions: words that were heard in these.
        speakers, lengths: parts of the corpus, worst speaker first, shortest utterances first.
        confusions: of words.
    """

    metrics: dict[str, Estimate]
    units: str
    words: Edits
    characters: Edits
    utterances: int
    correct: int
    silent: int
    silent_insertions: int
    speakers: tuple[Group, ...]
    lengths: tuple[Group, ...]
    confusions: Confusions


def scores(
    references: Sequence[str],
    hypotheses: Sequence[str],
    speakers: Sequence[str | None] | None = None,
    seconds: Sequence[float] | None = None,
    *,
    commonest: int = 20,
    seed: int = 0,
) -> Scores:
    """Error rates of a corpus and their parts.

    Args:
        references, hypotheses: one text an utterance, normalised by one rule.
        speakers: who says each; None where unknown, and then utterances are resampled.
        seconds: length of each, for the parts by length.
        commonest: confusions listed of each sort.
        seed: of the resamples.

    Raises:
        InputError: there are no utterances, or not as many of each.

    >>> found = scores(["the cat", "a dog", ""], ["the cat", "the dog", "um"])
    >>> found.metrics["wer"].value, found.utterances, found.silent_insertions
    (25.0, 2, 1)
    """
    _check(references, hypotheses, speakers, seconds)
    steps = [alignment(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    words = [_counted(of_one) for of_one in steps]
    characters = [edits(r, h) for r, h in zip(_spaced(references), _spaced(hypotheses), strict=True)]
    real = [index for index, count in enumerate(words) if count.symbols]
    named = _speakers(speakers, real)
    counts = {"wer": words, "cer": characters}
    by_speaker = _groups(speakers, words, characters, real)
    return Scores(
        metrics={name: _estimate([of[index] for index in real], named, seed) for name, of in counts.items()},
        units="utterances" if named is None else "speakers",
        words=sum((words[index] for index in real), Edits()),
        characters=sum((characters[index] for index in real), Edits()),
        utterances=len(real),
        correct=sum(words[index].errors == 0 for index in real),
        silent=len(words) - len(real),
        silent_insertions=sum(count.insertions for count in words if not count.symbols),
        speakers=tuple(sorted(by_speaker, key=lambda group: (-group.words.rate, group.name))),
        lengths=_by_length(seconds, words, characters, real),
        confusions=_confusions((step for index in real for step in steps[index]), commonest),
    )


def measured(
    references: Sequence[str], hypotheses: Sequence[str], speakers: Sequence[str | None] | None = None
) -> Scored:
    """``wer`` and ``cer`` of a corpus with what they are made of: symbols and errors of each utterance.

    Arguments and errors as in `scores`. Utterances without a reference are no units.

    >>> round(measured(["the cat", "a dog"], ["the cat", "the dog"]).measures["wer"].value)
    25
    """
    _check(references, hypotheses, speakers, None)
    real = [index for index, reference in enumerate(references) if reference.split()]
    said, heard = _spaced(references), _spaced(hypotheses)
    measures = {}
    for name, symbols in (("wer", str.split), ("cer", str)):
        counts = [edits(symbols(said[index]), symbols(heard[index])) for index in real]
        measures[name] = Measure(
            RATE,
            np.array([count.symbols for count in counts], dtype=np.float64),
            np.array([count.errors for count in counts], dtype=np.float64),
        )
    return Scored(measures, _speakers(speakers, real))


def compared(
    references: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    speakers: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Difference]:
    """``wer`` and ``cer`` of system a minus those of b on the same utterances, in percentage points.

    Arguments and errors as in `scores`.

    >>> texts = [f"number {i}" for i in range(100)]
    >>> compared(texts, texts, [text.replace("number 1", "numb 1") for text in texts])["wer"].value
    -5.5
    """
    of_a, of_b = (measured(references, texts, speakers) for texts in (a, b))
    return {
        name: paired(RATE, one.truth, one.prediction, of_b.measures[name].prediction, groups=of_a.groups, seed=seed)
        for name, one in of_a.measures.items()
    }


def _check(
    references: Sequence[str],
    hypotheses: Sequence[str],
    speakers: Sequence[str | None] | None,
    seconds: Sequence[float] | None,
) -> None:
    sizes = [len(part) for part in (references, hypotheses, speakers, seconds) if part is not None]
    if len(set(sizes)) > 1:
        raise InputError(f"references, hypotheses, speakers and seconds must be as many, got {sizes}")
    if not any(reference.split() for reference in references):
        raise InputError("no utterance has a reference", mend="give transcripts")


def _spaced(texts: Iterable[str]) -> list[str]:
    return [" ".join(text.split()) for text in texts]


# --- intervals --------------------------------------------------------------------------------------------------------


def _rate(symbols: Float[np.ndarray, "N"], errors: Float[np.ndarray, "N"]) -> float:
    return 100.0 * float(errors.sum()) / float(symbols.sum())


def _weighted_rate(
    symbols: Float[np.ndarray, "N"], errors: Float[np.ndarray, "N"], weights: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, "R"]:
    rate: NDArray[np.float64] = 100.0 * (weights @ errors) / (weights @ symbols)
    return rate


RATE = Metric("error_rate", _rate, greater_is_better=False, needs="value", weighted=_weighted_rate)
"""Of symbols (N,), all above 0, and errors (N,): the rate in percent."""


def _speakers(speakers: Sequence[str | None] | None, real: Sequence[int]) -> Int[np.ndarray, "N"] | None:
    """A number for the speaker of each utterance; None where utterances are to be resampled."""
    labels = [None if speakers is None else speakers[index] for index in real]
    if None in labels or len(set(labels)) < FEWEST_SPEAKERS:
        return None
    return np.unique([str(label) for label in labels], return_inverse=True)[1].astype(np.int64)


def _estimate(counts: Sequence[Edits], groups: Int[np.ndarray, "N"] | None, seed: int) -> Estimate:
    symbols = np.array([count.symbols for count in counts], dtype=np.float64)
    errors = np.array([count.errors for count in counts], dtype=np.float64)
    return bootstrap(RATE, symbols, errors, groups=groups, seed=seed)


# --- parts ------------------------------------------------------------------------------------------------------------


def _groups(
    labels: Sequence[str | None] | None, words: Sequence[Edits], characters: Sequence[Edits], real: Sequence[int]
) -> list[Group]:
    """Parts by label, in the order in which the labels first occur; what has none stays out."""
    members: dict[str, list[int]] = {}
    for index in real:
        label = None if labels is None else labels[index]
        if label is not None:
            members.setdefault(label, []).append(index)

    def total(counts: Sequence[Edits], indices: list[int]) -> Edits:
        return sum((counts[index] for index in indices), Edits())

    return [Group(label, len(some), total(words, some), total(characters, some)) for label, some in members.items()]


def _by_length(
    seconds: Sequence[float] | None, words: Sequence[Edits], characters: Sequence[Edits], real: Sequence[int]
) -> tuple[Group, ...]:
    if seconds is None:
        return ()
    bins = np.searchsorted(LENGTHS[1:], seconds, side="right")
    names = [f"{low:g} to {high:g} s" for low, high in pairwise(LENGTHS[:-1])] + [f"from {LENGTHS[-2]:g} s"]
    found = _groups([names[index] for index in bins.tolist()], words, characters, real)
    return tuple(sorted(found, key=lambda group: names.index(group.name)))


def _confusions(steps: Iterable[Step], commonest: int) -> Confusions:
    counts = {kind: Counter[tuple[str, ...]]() for kind in KINDS}
    for step in steps:
        counts[step.kind][tuple(word for word in (step.reference, step.hypothesis) if word is not None)] += 1

    def top(kind: str) -> list[tuple[tuple[str, ...], int]]:
        return sorted(counts[kind].items(), key=lambda item: (-item[1], item[0]))[:commonest]

    return Confusions(
        tuple((words[0], words[1], n) for words, n in top("substitution")),
        tuple((words[0], n) for words, n in top("insertion")),
        tuple((words[0], n) for words, n in top("deletion")),
    )
