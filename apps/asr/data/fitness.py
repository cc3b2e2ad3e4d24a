"""Whether an utterance can be learned from: the one rule by which ``check`` reports and training refuses or skips.

Every recording is decoded once, several at a time; a broken or an empty one then shows before the first step and not in
the middle of an epoch. Not fit for training is what cannot be read, has no sound or no text, lasts longer than the
limit, holds letters that the training texts do not have, or more tokens than the network gives frames: CTC then has no
alignment, and its loss would be infinite. Frames are counted at the fastest speed that augmentation may draw. What is
only scored may have any length, and where the network cannot be right about it, that is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from apps.asr.data.audio import AudioStore, decode, in_threads, part_of, samples_at_rate
from apps.asr.data.finding import SpeechFinding
from apps.asr.data.header import read_header
from apps.asr.data.manifest import Utterance
from apps.asr.data.measure import Measures, measure
from apps.asr.data.sources import Corpus, about
from apps.asr.decoding import required_frames
from apps.asr.tokenizer import Tokenizer
from core.command import Severity
from core.errors import InputError

NEEDED = ("train", "valid")
"""The splits that training needs."""
SCORED = "test"
"""The split that nothing is learned from, and no weights are chosen by."""


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


def no_split(name: str, corpus: Corpus) -> InputError:
    """What to say when a split that training needs is missing."""
    mend = "training needs utterances to learn from and others to stop on"
    return InputError(f"there is no split {name!r}", where=corpus.name, mend=mend)


def looked_at(
    utterances: Sequence[Utterance], split: str, limits: Limits, store: AudioStore | None = None
) -> Iterator[Measures | SpeechFinding]:
    """What each recording sounds like, or why nothing can be done with it; in order.

    Args:
        utterances: of one split.
        split: its name.
        limits: what training asks.
        store: keeps what is decoded, as far as it has room.
    """
    return in_threads(partial(_look, split=split, limits=limits, store=store), utterances)


def _look(utterance: Utterance, split: str, limits: Limits, store: AudioStore | None) -> Measures | SpeechFinding:
    try:
        header = read_header(utterance.path)
        first, last = part_of(utterance, header)
        seconds = (last - first) / header.rate + 2 * limits.pad_seconds
        if split != SCORED and seconds > limits.longest:
            what = f"lasts {seconds:.1f} s, longer than {limits.longest:g} s"
            return about(utterance, "too-long", what, "cut it at pauses, or raise --longest", split)
        recording = decode(utterance)
        if store is not None:
            store.put(utterance, recording)
    except InputError as error:
        return about(utterance, "unreadable", error.what, error.mend, split)
    return measure(recording)


def faults(
    utterance: Utterance, found: Measures, tokenizer: Tokenizer | None, limits: Limits, split: str
) -> Iterator[SpeechFinding]:
    """Why an utterance that can be read is not fit for training; nothing if it is.

    In the split that is only scored these are warnings: whatever the network answers there counts as it is.
    """
    severity: Severity = "warning" if split == SCORED else "error"
    for fault in (*_of_sound(utterance, found, split), *_of_text(utterance, found, tokenizer, limits, split)):
        yield fault if fault.kind == "no-text" else replace(fault, severity=severity)


def _of_sound(utterance: Utterance, found: Measures, split: str) -> Iterator[SpeechFinding]:
    if found.cancelling:
        what = "the channels cancel each other: their average is silent"
        yield about(utterance, "cancelling", what, "keep one channel of it", split)
    elif found.silent:
        what = "silent from beginning to end"
        yield about(utterance, "silent", what, "record it again, or leave it out", split)


def _of_text(
    utterance: Utterance, found: Measures, tokenizer: Tokenizer | None, limits: Limits, split: str
) -> Iterator[SpeechFinding]:
    """Can the model write it, and in so many frames?"""
    if tokenizer is None:
        return
    try:
        tokens = tokenizer.encode(utterance.text or "")
    except InputError as error:
        yield about(utterance, "foreign", error.what, error.mend, split)
        return
    if not tokens:
        yield about(utterance, "no-text", "nothing is left of the text", "write what is said", split)
        return
    if limits.output_lengths is None:
        return
    fastest = limits.fastest if split == "train" else 1.0
    samples = samples_at_rate(found.frames, found.rate, limits.pad_seconds)
    frames, needed = limits.output_lengths(int(samples / fastest)), required_frames(tokens)
    if frames < needed:
        at = f" at speed {fastest:g}" if fastest != 1 else ""
        what = f"gives {frames} frames{at}, and its text of {len(tokens)} tokens needs {needed}"
        yield about(utterance, "infeasible", what, "is it the right text? --pad-seconds gives tight clips more", split)
