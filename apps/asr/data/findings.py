"""Everything wrong with a corpus, found before training: each finding with file, line, reason and a way to mend it.

What is not fit for training is told by the rule that training uses (:mod:`apps.asr.data.fitness`); nothing that is
decoded is kept, so that a corpus may be larger than the memory. Durations are judged against the text on a logarithmic
scale: an utterance is out of line when its seconds a character lie more than 6 robust standard deviations (1.4826 times
the median absolute deviation) and a factor of 2 from the median.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from apps.asr.data.audio import SAMPLE_RATE, Progress
from apps.asr.data.finding import SpeechFinding
from apps.asr.data.fitness import NEEDED, Limits, faults, looked_at, no_split
from apps.asr.data.manifest import Utterance
from apps.asr.data.measure import CLIPPED, QUIET, Measures
from apps.asr.data.sources import Corpus, about, same_text
from apps.asr.tokenizer import Tokenizer
from core.command import Finding, Severity, from_error

FEW_UTTERANCES, RARE = 50, 3
SHARED_TEXTS = 0.10
"""Share of a split's texts that training has too, above which scores flatter."""
SHORTEST_SECONDS = 0.1
_ODD_DEVIATIONS, _ODD_FACTOR, _ODD_FEWEST = 6.0, 2.0, 30
_DECLARED_SECONDS, _DECLARED_SHARE = 0.1, 0.02


def inspect(
    corpus: Corpus,
    tokenizer: Tokenizer | None = None,
    limits: Limits | None = None,
    *,
    progress: Progress | None = None,
) -> list[Finding]:
    """Look at every row, header and recording of a corpus.

    Args:
        corpus: loaded with ``on_bad="skip"``, so that its faulty rows are told with the rest.
        tokenizer: fitted on the training texts; says what is foreign, and how many tokens a text has.
        limits: what training asks.
        progress: called with (recordings looked at, all recordings).

    Returns:
        One finding for each thing; see :func:`core.command.condense` for fewer lines.
    """
    limits = limits or Limits()
    findings: list[Finding] = list(corpus.faults)
    total, done = sum(len(utterances) for utterances in corpus.splits.values()), 0
    lengths: dict[str, float] = {}
    for split, utterances in corpus.splits.items():
        for utterance, found in zip(utterances, looked_at(utterances, split, limits), strict=True):
            done += 1
            if progress is not None:
                progress(done, total)
            if isinstance(found, Finding):
                findings.append(found)
                continue
            lengths[utterance.key] = found.seconds
            findings += faults(utterance, found, tokenizer, limits, split)
            findings += (replace(one, split=split) for one in _harmful(utterance, found))
        findings += _out_of_line([u for u in utterances if u.key in lengths], lengths, split)
    return [*findings, *_of_splits(corpus)]


def _said(severity: Severity, utterance: Utterance, kind: str, what: str, mend: str | None = None) -> SpeechFinding:
    return replace(about(utterance, kind, what, mend), severity=severity)


def _harmful(utterance: Utterance, found: Measures) -> Iterator[SpeechFinding]:
    """Of one recording, what it can be trained on with, but should not be so."""
    if not (found.silent or found.cancelling) and found.rms < QUIET:
        what = f"very quiet ({-20 * np.log10(found.rms):.0f} dB below full scale)"
        yield _said("warning", utterance, "quiet", what, "record it louder")
    if found.clipped > CLIPPED:
        what = f"{found.clipped:.1%} of the samples are clipped"
        yield _said("warning", utterance, "clipped", what, "record it at a lower level")
    if found.channels > 1:
        yield _said("note", utterance, "channels", f"{found.channels} channels: they are averaged")
    if found.rate < SAMPLE_RATE:
        what = f"{found.rate} samples a second: upsampled, and nothing above {found.rate // 2} Hz is in it"
        yield _said("note", utterance, "low-rate", what)
    if found.seconds < SHORTEST_SECONDS:
        yield _said("warning", utterance, "too-short", f"lasts {found.seconds * 1000:.0f} ms")
    declared = utterance.declared
    if declared is not None and abs(found.seconds - declared) > _DECLARED_SECONDS + _DECLARED_SHARE * declared:
        what = f"lasts {found.seconds:.2f} s where the manifest says {declared:.2f} s"
        yield _said("warning", utterance, "duration", what, "is it cut off, or another recording?")


def _out_of_line(utterances: Sequence[Utterance], lengths: Mapping[str, float], split: str) -> Iterator[Finding]:
    """Recordings far too long or too short for their texts, compared with the others of the split."""
    told = [u for u in utterances if same_text(u.text)]
    if len(told) < _ODD_FEWEST:
        return
    pace = np.log([lengths[u.key] / len(same_text(u.text)) for u in told])
    centre = np.median(pace)
    spread = 1.4826 * float(np.median(np.abs(pace - centre)))
    bound = max(_ODD_DEVIATIONS * spread, np.log(_ODD_FACTOR))
    for position in np.flatnonzero(np.abs(pace - centre) > bound):
        times = np.exp(abs(pace[position] - centre))
        size = "longer" if pace[position] > centre else "shorter"
        what = f"{lengths[told[position].key]:.2f} s, {times:.1f} times {size} than texts of this length usually take"
        yield replace(_said("warning", told[position], "pace", what, "is it the right text?"), split=split)


def _of_splits(corpus: Corpus) -> Iterator[Finding]:
    """Size, characters, and what training shares with the other splits."""
    train = corpus.splits.get("train", ())
    for name in NEEDED:
        if not corpus.splits.get(name):
            yield from_error(no_split(name, corpus), "no-split", split=name)
    if 0 < len(train) < FEW_UTTERANCES:
        what = f"{len(train)} utterances to learn from"
        mend = "gather more; some hours of speech are usual"
        yield Finding(severity="warning", kind="few", what=what, split="train", mend=mend)
    yield from _of_rare(train)
    for name, utterances in corpus.splits.items():
        if train and name != "train":
            yield from _shared_recordings(train, utterances, name)
            yield from _shared_speakers(train, utterances, name)
            yield from _shared_texts(train, utterances, name)


def _of_rare(train: Sequence[Utterance]) -> Iterator[Finding]:
    """Characters that next to no training text has: typing errors, or letters that cannot be learned."""
    holders = Counter(character for u in train for character in set((u.text or "").casefold()))
    rare = sorted(character for character, count in holders.items() if count < RARE)
    if rare and len(train) >= FEW_UTTERANCES:
        what = f"characters in fewer than {RARE} texts: {', '.join(map(repr, rare[:20]))}"
        first = next(u for u in train if set(rare) & set((u.text or "").casefold()))
        mend = "are they meant? the model gets an output for each, and can hardly learn it"
        yield replace(_said("note", first, "rare-characters", what, mend), split="train")


def _shared_recordings(train: Sequence[Utterance], other: Sequence[Utterance], name: str) -> Iterator[Finding]:
    known = {u.segment for u in train}
    for utterance in other:
        if utterance.segment in known:
            found = _said("warning", utterance, "shared-recording", "is in train too", "keep it in one split")
            yield replace(found, split=name)


def _shared_speakers(train: Sequence[Utterance], other: Sequence[Utterance], name: str) -> Iterator[Finding]:
    both = {u.speaker for u in train} & {u.speaker for u in other} - {None}
    if both:
        named = ", ".join(sorted(str(speaker) for speaker in both)[:5])
        count = f"{len(both)} speakers are" if len(both) > 1 else "1 speaker is"
        what = f"{count} in train too ({named}): scores say nothing about new voices"
        yield Finding(severity="warning", kind="shared-speakers", what=what, split=name, mend="split by speaker")


def _shared_texts(train: Sequence[Utterance], other: Sequence[Utterance], name: str) -> Iterator[Finding]:
    known = {same_text(u.text) for u in train}
    share = sum(same_text(u.text) in known for u in other) / len(other)
    if share:
        severity: Severity = "warning" if share > SHARED_TEXTS else "note"
        what = f"{share:.1%} of the utterances have a text that is in train too"
        mend = "split by text where words should be new"
        yield Finding(severity=severity, kind="shared-texts", what=what, split=name, mend=mend)
