"""From a corpus to a trained recogniser: sort out what cannot be learned, fit the tokenizer, train.

What cannot be learned (:mod:`apps.asr.data.fitness`) is found before the first step. Such an utterance is refused, or
left out and counted by its reason, as ``on_bad`` says.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from apps.asr.config import AsrConfig
from apps.asr.data.audio import SAMPLE_RATE, AudioStore, Progress
from apps.asr.data.dataset import SpeechBatches
from apps.asr.data.finding import SpeechFinding
from apps.asr.data.fitness import NEEDED, Limits, faults, looked_at, no_split
from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import Corpus, refuse
from apps.asr.features import LogMel
from apps.asr.model import Squeezeformer
from apps.asr.recogniser import Recogniser
from apps.asr.subsampling import subsampled_length
from apps.asr.task import SpeechTask
from apps.asr.tokenizer import Tokenizer, fit_tokenizer
from core.command import counted
from core.errors import InputError
from core.training import ByLength, FitResult, Loader, fit, preserved
from core.training import Progress as FitProgress
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
    progress: ProgressName | FitProgress = "off",
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
    with counted("reading", shown=progress in ("auto", "bar")) as told:
        prepared = prepare(config, corpus, told=told)
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


def prepare(config: AsrConfig, corpus: Corpus, *, told: Progress = lambda done, total: None) -> Prepared:
    """Read every recording and keep what fits in memory, fit the tokenizer on the training texts, sort out the bad.

    Args:
        config: every setting.
        corpus: with the splits ``train`` and ``valid``.
        told: called with (recordings read, all recordings).

    Raises:
        InputError: a split is missing, or nothing of it is left, or something is bad and ``on_bad`` is ``refuse``.
    """
    for name in NEEDED:
        if not corpus.splits.get(name):
            raise no_split(name, corpus)
    texts = [utterance.text for utterance in corpus.splits["train"] if utterance.text]
    if not texts:
        raise InputError("no training utterance has a text", where=corpus.name, mend="add transcripts")
    tokenizer, store = fit_tokenizer(config.tokenizer, texts), AudioStore(pad_seconds=config.pad_seconds)
    splits: dict[str, Split] = {}
    bad: list[SpeechFinding] = []
    sizes = [len(corpus.splits[name]) for name in NEEDED]
    for place, name in enumerate(NEEDED):
        count = partial(_onwards, told, sum(sizes[:place]), sum(sizes))
        splits[name], found = _sorted_out(corpus.splits[name], name, tokenizer, limits_of(config), store, count)
        bad += found
    if bad and config.on_bad == "refuse":
        refuse(bad)
    skipped = dict(Counter(one.kind for one in (*corpus.faults, *bad)).most_common())
    for name, split in splits.items():
        if not split.utterances:
            raise InputError(f"nothing is left of {name} ({said(skipped)})", where=corpus.name)
    return Prepared(tokenizer, splits["train"], splits["valid"], skipped, store)


def _onwards(told: Progress, before: int, total: int, done: int) -> None:
    told(before + done, total)


def limits_of(config: AsrConfig) -> Limits:
    """What a training with this config asks of an utterance."""
    features = LogMel(config.features)

    def output_lengths(samples: int) -> int:
        return int(subsampled_length(torch.tensor([features.frames(samples)]))[0])

    return Limits(config.longest, config.pad_seconds, max(1.0, *config.augment.speeds), output_lengths)


def _sorted_out(
    utterances: Sequence[Utterance],
    name: str,
    tokenizer: Tokenizer,
    limits: Limits,
    store: AudioStore,
    count: Callable[[int], None],
) -> tuple[Split, list[SpeechFinding]]:
    """The good ones of a split with their targets, and the bad ones."""
    good: list[Utterance] = []
    bad: list[SpeechFinding] = []
    found = looked_at(utterances, name, limits, store)
    for done, (utterance, one) in enumerate(zip(utterances, found, strict=True), start=1):
        count(done)
        wrong = [one] if isinstance(one, SpeechFinding) else [*faults(utterance, one, tokenizer, limits, name)]
        bad += wrong[:1]
        if not wrong:
            good.append(utterance)
    targets = tuple(tuple(tokenizer.encode(utterance.text or "")) for utterance in good)
    seconds = sum(store.samples(utterance) for utterance in good) / SAMPLE_RATE
    return Split(tuple(good), targets, seconds), bad


def said(skipped: Mapping[str, int]) -> str:
    """How many for which reason.

    >>> said({"no-text": 1200, "too-long": 1})
    '1,200 no-text, 1 too-long'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())


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
