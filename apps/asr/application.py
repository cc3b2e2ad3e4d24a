"""Speech recognition as an application: what training, comparing and searching need of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from apps.asr.config import AsrConfig
from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import DEFAULT_DATA, Corpus, load_corpus, part_of
from apps.asr.evaluate import reference
from apps.asr.fitting import Fitted, fit_recogniser, said
from apps.asr.metrics import RATE, measured
from apps.asr.model import Squeezeformer
from apps.asr.presets import PRESETS
from apps.asr.recogniser import TASK, Recogniser, load_run
from apps.asr.tokenizer import fit_tokenizer
from core.application import Application, Scored, Trained
from core.command import RunDirectory
from core.errors import InputError, nearest
from core.evaluation.metrics import Metric
from core.rewrite import Rewrite
from core.sequence import Ragged
from core.training import Progress
from core.training.progress import ProgressName

NOMINAL_OUTPUTS = 128
PROBE_UTTERANCES = 8
"""Recordings that a network is tried on."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The argument that says which corpus."""

    data: str = DEFAULT_DATA
    """Folder with a manifest or laid out as LibriSpeech, one manifest, or synthetic:sentences (spoken by espeak-ng)."""


class SpeechRecognition(Application[AsrConfig, Corpus, Recogniser]):
    """Squeezeformer with CTC on a corpus."""

    name = TASK
    model_name = "squeezeformer"
    config = AsrConfig
    presets = PRESETS
    source = Source

    def load(self, source: Source, config: AsrConfig) -> Corpus:
        """The utterances by split; no audio is decoded."""
        return load_corpus(source.data, on_bad=config.on_bad)

    def facts(self, source: Source, data: Corpus) -> dict[str, Any]:
        """The source, and a digest of each split."""
        return {
            "data": source.data,
            "synthetic": data.synthetic,
            "utterances": {name: len(utterances) for name, utterances in data.splits.items()},
            "digest": dict(data.digests),
        }

    def part(self, data: Corpus, share: float) -> Corpus:
        """Utterances of all speakers."""
        return part_of(data, share)

    def build(self, config: AsrConfig, data: Corpus) -> nn.Module:
        """A network with as many outputs as the tokenizer of the training texts has."""
        texts = [utterance.text for utterance in data.splits.get("train", ()) if utterance.text]
        return Squeezeformer(config.features.n_mels, fit_tokenizer(config.tokenizer, texts).size, config.model)

    def prototype(self, config: AsrConfig) -> nn.Module:
        """The network for as many outputs as a small vocabulary has."""
        return Squeezeformer(config.features.n_mels, NOMINAL_OUTPUTS, config.model)

    def fit(
        self,
        config: AsrConfig,
        data: Corpus,
        *,
        directory: Path | None = None,
        progress: ProgressName | Progress = "off",
    ) -> Trained[Recogniser]:
        """One network."""
        fitted = fit_recogniser(config, data, directory=directory, progress=progress)
        result = fitted.result
        return Trained(
            model=fitted.recogniser,
            results=(result,),
            complete=result.stopped_by != "minutes",
            facts=_facts(fitted),
            history=result.history,
            summary=_summary(fitted),
        )

    def open(self, run: RunDirectory) -> Recogniser:
        """The recogniser of a finished run."""
        return load_run(run.path)

    def monitored(self, config: AsrConfig, data: Corpus) -> str:
        """An error rate or the loss."""
        return config.watch

    def rewritten(
        self, model: Recogniser, networks: Sequence[nn.Module], rewrites: Sequence[Sequence[Rewrite]]
    ) -> Recogniser:
        """The recogniser with another network."""
        (network,), (each,) = networks, rewrites
        return Recogniser(model.config, model.tokenizer, cast(Squeezeformer, network), each)

    def probe(self, model: Recogniser, data: Corpus, split: str) -> Callable[[nn.Module], Tensor]:
        """Logits of the real frames of the first recordings."""
        features, lengths = model.inputs(self._utterances(data, split)[:PROBE_UTTERANCES])

        def run(network: nn.Module) -> Tensor:
            logits, frames = network(features.to(next(network.parameters()).dtype), lengths)
            return Ragged.from_lengths(frames, logits.shape[1]).pack(logits)

        return run

    def metrics(self, data: Corpus) -> Mapping[str, Metric]:
        """Error rates of words and characters in percent."""
        return {"wer": RATE, "cer": RATE}

    def score(self, model: Recogniser, data: Corpus, split: str) -> Scored:
        """Word and character error rates; utterances are the units, or speakers where there are enough of them."""
        utterances = self._utterances(data, split)
        texts = [transcript.text for transcript in model.stream(utterances)]
        said = [reference(model, utterance) for utterance in utterances]
        return measured(said, texts, [utterance.speaker for utterance in utterances])

    def _utterances(self, data: Corpus, split: str) -> tuple[Utterance, ...]:
        utterances = data.splits.get(split)
        if not utterances:
            mend = nearest(split, [*data.splits])
            raise InputError(f"there is no split {split!r}", where=data.name, mend=mend)
        return utterances


APPLICATION = SpeechRecognition()


def _facts(fitted: Fitted) -> dict[str, Any]:
    result, prepared = fitted.result, fitted.prepared
    return {
        "utterances": {"train": len(prepared.train.utterances), "valid": len(prepared.valid.utterances)},
        "seconds_of_audio": {"train": prepared.train.seconds, "valid": prepared.valid.seconds},
        "skipped": dict(prepared.skipped),
        "best": result.best,
        "best_epoch": result.best_epoch,
        "steps": result.steps,
        "seconds": result.seconds,
        "seconds_to_best": result.seconds_to_best,
        "stopped_by": result.stopped_by,
    }


def _summary(fitted: Fitted) -> Sequence[str]:
    """What a person reads after training."""
    config, result, prepared = fitted.recogniser.config, fitted.result, fitted.prepared
    unit = " nats" if config.watch == "loss" else " %"
    best = "not measured" if result.best is None else f"{result.best:.4g}{unit} in epoch {result.best_epoch}"
    left_out = [f"left out: {said(prepared.skipped)}"] if prepared.skipped else []
    return [
        *left_out,
        f"trained on {len(prepared.train.utterances):,} utterances ({prepared.train.seconds / 60:.1f} minutes), in "
        f"{result.seconds:.0f} s; validation {config.watch}: {best}",
    ]
