"""From a corpus to a trained recogniser: sort out what cannot be learned, fit the tokenizer, train.

What cannot be learned is found before the first step: a recording that cannot be read, no text, longer than the limit,
letters that the training texts do not have, more tokens than frames (CTC then has no alignment, and its loss would be
infinite; frames are counted at the fastest speed that augmentation may draw). Such an utterance is refused, or left out
and counted by its reason, as ``on_bad`` says.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from apps.asr.config import AsrConfig
from apps.asr.data.audio import SAMPLE_RATE, AudioStore, in_threads
from apps.asr.data.dataset import SpeechBatches
from apps.asr.data.finding import Finding
from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import Corpus, about, refuse
from apps.asr.decoding import required_frames
from apps.asr.features import LogMel
from apps.asr.model import Squeezeformer
from apps.asr.recogniser import Recogniser
from apps.asr.subsampling import subsampled_length
from apps.asr.task import SpeechTask
from apps.asr.tokenizer import Tokenizer, fit_tokenizer
from core.errors import InputError
from core.training import ByLength, FitResult, Loader, Progress, fit, preserved
from core.training.progress import ProgressName


@dataclass(frozen=True)
class Split:
    """What is learned from, or evaluated while learning."""

    utterances: tuple[Utterance, ...]
    targets: tuple[tuple[int, ...], ...]
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """A corpus, ready for training."""

    tokenizer: Tokenizer
    train: Split
    valid: Split
    skipped: Mapping[str, int]
    """How many utterances were left out for which reason."""
    store: AudioStore


@dataclass(frozen=True)
class Fitted:
    """What training gives: the recogniser, and how it came to be."""

    recogniser: Recogniser
    result: FitResult
    prepared: Prepared


@preserved()
def fit_recogniser(
    config: AsrConfig,
    corpus: Corpus,
    *,
    directory: Path | None = None,
    progress: ProgressName | Progress = "off",
) -> Fitted:
    """Train on ``corpus``'s train split, watching its valid split.

    Args:
        config: every setting.
        corpus: with both splits.
        directory: where to keep checkpoints; nothing is written where absent.
        progress: as for :func:`core.training.fit`.

    Raises:
        InputError: utterances that cannot be learned from (unless ``on_bad`` is ``skip``), or the folder holds another
            run.
        Interrupted: stopped by a signal, after saving.
    """
    prepared = prepare(config, corpus)
    torch.manual_seed(config.seed)
    model = Squeezeformer(config.features.n_mels, prepared.tokenizer.size, config.model)
    train, valid = (_loader(config, prepared, name) for name in ("train", "valid"))
    settings = dataclasses.replace(config.fit, seed=config.seed, monitor=config.watch, mode="min")
    result = fit(
        SpeechTask(model, prepared.tokenizer),
        train=train,
        valid=valid,
        optimizer=config.optim.build(model),
        schedule=config.schedule.build(settings.max_epochs * len(train)),
        settings=settings,
        directory=directory,
        progress=progress,
    )
    return Fitted(Recogniser(config, prepared.tokenizer, model), result, prepared)


def prepare(config: AsrConfig, corpus: Corpus) -> Prepared:
    """Read what fits in memory, fit the tokenizer on the training texts, encode, sort out the bad.

    Raises:
        InputError: a split is missing, or nothing of it is left, or something is bad and ``on_bad`` is ``refuse``.
    """
    for name in ("train", "valid"):
        if not corpus.splits.get(name):
            mend = "training needs utterances to learn from and others to stop on"
            raise InputError(f"there is no split {name!r}", where=corpus.name, mend=mend)
    store = AudioStore(pad_seconds=config.pad_seconds)
    texts = [utterance.text for utterance in corpus.splits["train"] if utterance.text]
    if not texts:
        raise InputError("no training utterance has a text", where=corpus.name, mend="add transcripts")
    tokenizer = fit_tokenizer(config.tokenizer, texts)
    examiner = _Examiner(config, tokenizer, store)
    splits: dict[str, Split] = {}
    bad: list[Finding] = []
    for name in ("train", "valid"):
        splits[name], found = examiner.sort_out(corpus.splits[name], name)
        bad += found
    if bad and config.on_bad == "refuse":
        refuse(bad)
    skipped = dict(Counter(one.kind for one in (*corpus.faults, *bad)).most_common())
    for name, split in splits.items():
        if not split.utterances:
            raise InputError(f"nothing is left of {name} ({said(skipped)})", where=corpus.name)
    return Prepared(tokenizer, splits["train"], splits["valid"], skipped, store)


def said(skipped: Mapping[str, int]) -> str:
    """How many for which reason.

    >>> said({"no-text": 1200, "too-long": 1})
    '1,200 no-text, 1 too-long'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())


class _Examiner:
    """Looks at utterances one by one."""

    def __init__(self, config: AsrConfig, tokenizer: Tokenizer, store: AudioStore) -> None:
        self.config, self.tokenizer, self.store = config, tokenizer, store
        self.features = LogMel(config.features)

    def sort_out(self, utterances: Sequence[Utterance], split: str) -> tuple[Split, list[Finding]]:
        """The good ones with their targets, and the bad ones."""
        good, targets, bad, seconds = [], [], [], 0.0
        lengths = in_threads(self._samples, utterances)
        for utterance, samples in zip(utterances, lengths, strict=True):
            if isinstance(samples, InputError):
                bad.append(about(utterance, "unreadable", samples.what, samples.mend, split))
                continue
            found = self._examine(utterance, samples, split)
            if isinstance(found, Finding):
                bad.append(found)
                continue
            good.append(utterance)
            targets.append(found)
            seconds += samples / SAMPLE_RATE
        return Split(tuple(good), tuple(targets), seconds), bad

    def _samples(self, utterance: Utterance) -> int | InputError:
        """Its length. While there is room, what will be needed anyway is decoded now: a broken file shows early."""
        try:
            samples = self.store.samples(utterance)
            if self.store.bytes + 2 * samples <= self.store.limit_bytes:
                samples = len(self.store[utterance])
        except InputError as error:
            return error
        return samples

    def _examine(self, utterance: Utterance, samples: int, split: str) -> Finding | tuple[int, ...]:
        try:
            targets = tuple(self.tokenizer.encode(utterance.text or ""))
        except InputError as error:
            return about(utterance, "foreign", error.what, error.mend, split)
        if not targets:
            return about(utterance, "no-text", "has no text", "write what is said", split)
        if samples > self.config.longest * SAMPLE_RATE:
            what = f"lasts {samples / SAMPLE_RATE:.1f} s, longer than {self.config.longest:g} s"
            return about(utterance, "too-long", what, "cut it, or raise --longest", split)
        frames, needed = self._frames(samples, split), required_frames(targets)
        if frames < needed:
            what = f"gives {frames} frames, and its text of {len(targets)} tokens needs {needed}"
            return about(utterance, "infeasible", what, "is it the right text?", split)
        return targets

    def _frames(self, samples: int, split: str) -> int:
        """Output frames; of training audio at the fastest speed."""
        fastest = max(1.0, *self.config.augment.speeds) if split == "train" else 1.0
        frames = self.features.frames(int(samples / fastest))
        return int(subsampled_length(torch.tensor([frames]))[0])


def _loader(config: AsrConfig, prepared: Prepared, name: str) -> Loader:
    split: Split = getattr(prepared, name)
    train = name == "train"
    batches = SpeechBatches(
        split.utterances,
        split.targets,
        prepared.store,
        LogMel(config.features),
        config.augment if train else None,
    )
    return Loader(batches, ByLength(batches.seconds, config.batch_seconds), seed=config.seed, shuffle=train)
