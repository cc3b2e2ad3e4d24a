"""Everything wrong with a corpus, found before training: each finding with file, line, reason and a way to mend it.

Every recording is decoded once, several at a time, its header judged before memory is asked for; nothing is kept, so
that a corpus may be larger than the memory. ``error``: it cannot be trained on. Durations are judged against
the text on a logarithmic scale: an utterance is out of line when its seconds a character lie more than 6 robust
standard deviations (1.4826 times the median absolute deviation) and a factor of 2 from the median.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.asr.data.audio import SAMPLE_RATE, Progress, decode, in_threads, samples_at_rate
from apps.asr.data.finding import Finding, Severity, condense, from_error
from apps.asr.data.manifest import Utterance
from apps.asr.data.measure import CLIPPED, QUIET, Measures, measure
from apps.asr.data.sources import Corpus, about, same_text
from apps.asr.decoding import required_frames
from apps.asr.tokenizer import Tokenizer
from core.errors import InputError

__all__ = ["Finding", "Limits", "condense", "from_error", "inspect"]

FEW_UTTERANCES, RARE = 50, 3
SHARED_TEXTS = 0.10
"""Share of a split's texts that training has too, above which scores flatter."""
SHORTEST_SECONDS = 0.1
_ODD_DEVIATIONS, _ODD_FACTOR, _ODD_FEWEST = 6.0, 2.0, 30
_DECLARED_SECONDS, _DECLARED_SHARE = 0.1, 0.02


@dataclass(frozen=True)
class Limits:
    """What training asks of an utterance.

    Attributes:
        longest: seconds; longer ones are not trained on.
        pad_seconds: quiet put before and after each, as in training.
        fastest: the highest speed that augmentation draws.
        output_lengths: frames T' of the model's output from samples at 16 kHz; None leaves lengths unjudged.
    """

    longest: float = 30.0
    pad_seconds: float = 0.0
    fastest: float = 1.0
    output_lengths: Callable[[int], int] | None = None


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
        One finding for each thing; see :func:`condense` for fewer lines.
    """
    limits = limits or Limits()
    findings = list(corpus.faults)
    total, done = sum(len(utterances) for utterances in corpus.splits.values()), 0
    lengths: dict[str, float] = {}
    for split, utterances in corpus.splits.items():
        for utterance, found in zip(utterances, in_threads(_look, utterances), strict=True):
            done += 1
            if progress is not None:
                progress(done, total)
            if isinstance(found, Finding):
                findings.append(replace(found, split=split))
                continue
            lengths[utterance.key] = found.seconds
            findings += (replace(one, split=split) for one in _of_sound(utterance, found))
            findings += _of_length(utterance, found.seconds, limits, split)
            if tokenizer is not None:
                fastest = limits.fastest if split == "train" else 1.0
                findings += _of_text(utterance, found, tokenizer, replace(limits, fastest=fastest), split)
        findings += _out_of_line([u for u in utterances if u.key in lengths], lengths, split)
    return [*findings, *_of_splits(corpus)]


def _look(utterance: Utterance) -> Measures | Finding:
    try:
        return measure(decode(utterance))
    except InputError as error:
        return about(utterance, "unreadable", error.what, error.mend)


def _said(severity: Severity, utterance: Utterance, kind: str, what: str, mend: str | None = None) -> Finding:
    return replace(about(utterance, kind, what, mend), severity=severity)


def _of_sound(utterance: Utterance, found: Measures) -> Iterator[Finding]:
    """Of one recording, whatever is said in it."""
    if found.cancelling:
        what = "the channels cancel each other: their average is silent"
        yield _said("error", utterance, "cancelling", what, "keep one channel of it")
    elif found.silent:
        yield _said("error", utterance, "silent", "silent from beginning to end", "record it again, or leave it out")
    elif found.rms < QUIET:
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


def _of_length(utterance: Utterance, seconds: float, limits: Limits, split: str) -> Iterator[Finding]:
    """Too long to train on (what is only recognised may have any length), too short, not as declared."""
    if split != "test" and seconds + 2 * limits.pad_seconds > limits.longest:
        what = f"lasts {seconds:.1f} s, longer than {limits.longest:g} s"
        yield about(utterance, "too-long", what, "cut it at pauses, or allow longer ones", split)
    elif seconds < SHORTEST_SECONDS:
        yield replace(_said("warning", utterance, "too-short", f"lasts {seconds * 1000:.0f} ms"), split=split)
    declared = utterance.declared
    if declared is not None and abs(seconds - declared) > _DECLARED_SECONDS + _DECLARED_SHARE * declared:
        what = f"lasts {seconds:.2f} s where the manifest says {declared:.2f} s"
        mend = "is it cut off, or another recording?"
        yield replace(_said("warning", utterance, "duration", what, mend), split=split)


def _of_text(
    utterance: Utterance, found: Measures, tokenizer: Tokenizer, limits: Limits, split: str
) -> Iterator[Finding]:
    """Of one transcript: can the model write it, and in so many frames? A test text it cannot write counts as wrong."""
    severity: Severity = "warning" if split == "test" else "error"
    try:
        tokens = tokenizer.encode(utterance.text or "")
    except InputError as error:
        yield replace(about(utterance, "foreign", error.what, error.mend, split), severity=severity)
        return
    if not tokens:
        yield about(utterance, "no-text", "nothing is left of the text", "write what is said", split)
        return
    if limits.output_lengths is None:
        return
    samples = samples_at_rate(round(found.seconds * found.rate), found.rate, limits.pad_seconds)
    frames, needed = limits.output_lengths(int(samples / limits.fastest)), required_frames(tokens)
    if frames < needed:
        at = f" at speed {limits.fastest:g}" if limits.fastest != 1 else ""
        what = f"gives {frames} frames{at}, and its text of {len(tokens)} tokens needs {needed}"
        mend = "is it the right text? pad_seconds gives tight clips more frames"
        yield replace(about(utterance, "infeasible", what, mend, split), severity=severity)


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
    if 0 < len(train) < FEW_UTTERANCES:
        what = f"{len(train)} utterances to learn from"
        yield Finding("warning", "few", what, split="train", mend="gather more; some hours of speech are usual")
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
            yield about(utterance, "shared-recording", "this recording is in train too", "keep it in one split", name)


def _shared_speakers(train: Sequence[Utterance], other: Sequence[Utterance], name: str) -> Iterator[Finding]:
    both = {u.speaker for u in train} & {u.speaker for u in other} - {None}
    if both:
        named = ", ".join(sorted(str(speaker) for speaker in both)[:5])
        count = f"{len(both)} speakers are" if len(both) > 1 else "1 speaker is"
        what = f"{count} in train too ({named}): scores say nothing about new voices"
        yield Finding("warning", "shared-speakers", what, split=name, mend="split by speaker")


def _shared_texts(train: Sequence[Utterance], other: Sequence[Utterance], name: str) -> Iterator[Finding]:
    known = {same_text(u.text) for u in train}
    share = sum(same_text(u.text) in known for u in other) / len(other)
    if share:
        severity: Severity = "warning" if share > SHARED_TEXTS else "note"
        what = f"{share:.1%} of the utterances have a text that is in train too"
        yield Finding(severity, "shared-texts", what, split=name, mend="split by text where words should be new")
