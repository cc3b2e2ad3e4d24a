"""One run in this process: train, transcribe, score, store. Started by :mod:`benchmarks.asr.accuracy`, never by hand.

Reads a request as JSON on standard input. Stores the counts of errors of every test utterance, from which
:mod:`benchmarks.asr.accuracy_table` computes rates, intervals and differences without the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from apps.asr.config import AsrConfig
from apps.asr.data.audio import SAMPLE_RATE, AudioStore
from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import load_corpus
from apps.asr.fitting import Prepared, prepare
from apps.asr.metrics import edits
from apps.asr.presets import PRESETS
from benchmarks.asr.accuracy import RunKey, save
from benchmarks.asr.peers import parameters
from benchmarks.asr.sphinx import recogniser
from benchmarks.asr.systems import SYSTEMS, System
from benchmarks.asr.training import train, transcribe
from benchmarks.common.measure import peak_memory_mib, timed
from benchmarks.common.record import provenance


def main() -> int:
    """Run the request on standard input."""
    request = json.load(sys.stdin)
    run(RunKey(**request["key"]), request["data"], Path(request["folder"]), limit=request["limit"])
    return 0


def run(key: RunKey, data: str, folder: Path, *, limit: int | None = None) -> None:
    """Make one run; ``limit`` keeps only the first utterances of each split, for trying things out."""
    torch.set_num_threads(key.threads)
    system = SYSTEMS[key.system]
    config = dataclasses.replace(PRESETS[key.preset](), seed=key.seed, on_bad="skip")
    corpus = load_corpus(data, on_bad="skip")
    splits = {name: utterances[:limit] for name, utterances in corpus.splits.items()}
    prepared = prepare(config, dataclasses.replace(corpus, splits=splits))
    tested = [utterance for utterance in splits["test"] if prepared.tokenizer.normalise(utterance.text or "")]
    prepared.store.preload(tested)
    record = _trained(system, prepared, config, tested, key) if system.build else _as_it_comes(prepared, tested)
    record |= {
        "status": "finished",
        "synthetic": corpus.synthetic,
        "digests": dict(corpus.digests),
        "skipped": dict(prepared.skipped),
        "memory": {"peak_mib": peak_memory_mib()},
        "provenance": provenance(threads=key.threads, packages=system.packages),
    }
    save(folder, key, record)


def _trained(
    system: System, prepared: Prepared, config: AsrConfig, tested: Sequence[Utterance], key: RunKey
) -> dict[str, Any]:
    assert system.build is not None
    torch.manual_seed(key.seed)
    model = system.build(config.features.n_mels, prepared.tokenizer.size, config.model)
    trained = train(model, prepared, config, minutes=key.minutes, rules=system.rules)
    result = trained.result
    spoken = timed(lambda: transcribe(model, prepared.tokenizer, tested, prepared.store, config))
    return {
        "parameters": parameters(model),
        "fit": {
            "seconds": result.seconds,
            "epochs_planned": trained.epochs,
            "seconds_per_epoch_estimated": trained.seconds_per_epoch,
            "epochs": len(result.history),
            "steps": result.steps,
            "stopped_by": result.stopped_by,
            "best_epoch": result.best_epoch,
            "seconds_to_best": result.seconds_to_best,
        },
        "valid": {"watch": config.watch, "best": result.best},
        "history": result.history,
        **_said(tested, spoken.result, spoken.wall, prepared),
    }


def _as_it_comes(prepared: Prepared, tested: Sequence[Utterance]) -> dict[str, Any]:
    transcriber = recogniser()
    spoken = timed(lambda: [transcriber(prepared.store[utterance]) for utterance in tested])
    texts = [prepared.tokenizer.normalise(text) for text in spoken.result]
    return {"parameters": None, "fit": None, **_said(tested, texts, spoken.wall, prepared)}


def _said(tested: Sequence[Utterance], texts: Sequence[str], seconds: float, prepared: Prepared) -> dict[str, Any]:
    lengths = _seconds(prepared.store, tested)
    utterances = []
    for utterance, text, length in zip(tested, texts, lengths, strict=True):
        reference = prepared.tokenizer.normalise(utterance.text or "")
        utterances.append(
            {
                "key": utterance.key,
                "speaker": utterance.speaker,
                "seconds": length,
                "hypothesis": text,
                "words": _counts(reference.split(), text.split()),
                "characters": _counts(list(reference), list(text)),
            }
        )
    return {"predict": {"seconds": seconds, "audio_seconds": sum(lengths)}, "utterances": utterances}


def _seconds(store: AudioStore, utterances: Sequence[Utterance]) -> list[float]:
    return [store.samples(utterance) / SAMPLE_RATE for utterance in utterances]


def _counts(reference: Sequence[str], hypothesis: Sequence[str]) -> dict[str, int]:
    """Errors, and what they are counted against."""
    found = edits(reference, hypothesis)
    return {"errors": found.substitutions + found.deletions + found.insertions, "of": len(reference)}


if __name__ == "__main__":
    sys.exit(main())
