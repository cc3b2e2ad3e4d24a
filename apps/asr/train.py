"""``manyformer asr train``: from recordings with transcripts to a saved recogniser."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.asr.config import AsrConfig
from apps.asr.data.sources import DEFAULT_DATA, Corpus, load_corpus
from apps.asr.fitting import Fitted, fit_recogniser, said
from apps.asr.presets import PRESETS
from apps.asr.recogniser import TASK
from core.command import (
    Parsed,
    RunDirectory,
    TrainArguments,
    claim_data,
    discarded_if_refused,
    is_complete,
    only_writer,
    parse_config,
    run,
    say,
    write_outcome,
)


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainArguments):
    """Train a recogniser and save it. The same command again resumes a run that was cut."""

    data: str = DEFAULT_DATA
    """Folder with a manifest or laid out as LibriSpeech, one manifest, or synthetic:sentences (spoken by espeak-ng)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    parsed = parse_config(AsrConfig, PRESETS, argv, arguments=Arguments, prog="manyformer asr train")
    arguments, config = parsed.arguments, parsed.config
    corpus = load_corpus(arguments.data, seed=config.seed, on_bad=config.on_bad)
    with only_writer(arguments.out):
        directory = RunDirectory.create(arguments.out, config, task=TASK)
        claim_data(directory, _facts(arguments.data, corpus))
        if is_complete(directory):
            say(f"{arguments.out}: this run is finished; choose another folder to train again")
            return
        fitted = _fit(parsed, corpus, directory)
        fitted.recogniser.save(directory.best)
        result = fitted.result
        write_outcome(directory, _outcome(fitted), result.history, complete=result.stopped_by != "minutes")
    say(_summary(fitted, arguments))


def _facts(data: str, corpus: Corpus) -> dict[str, Any]:
    """What the run learns from."""
    return {
        "data": data,
        "synthetic": corpus.synthetic,
        "utterances": {name: len(utterances) for name, utterances in corpus.splits.items()},
        "digest": dict(corpus.digests),
    }


def _fit(parsed: Parsed[AsrConfig, Arguments], corpus: Corpus, directory: RunDirectory) -> Fitted:
    config, minutes = parsed.config, parsed.arguments.max_minutes
    if minutes is not None:
        # A limit of this call, not a setting of the run: a resumed run may have more.
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, max_minutes=minutes))
    with discarded_if_refused(directory):
        fitted = fit_recogniser(config, corpus, directory=directory.last, progress=parsed.arguments.progress)
    fitted.recogniser.config = parsed.config
    return fitted


def _outcome(fitted: Fitted) -> dict[str, Any]:
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


def _summary(fitted: Fitted, arguments: Arguments) -> str:
    """What a person reads after training."""
    config, result, prepared = fitted.recogniser.config, fitted.result, fitted.prepared
    unit = " nats" if config.watch == "loss" else " %"
    best = "not measured" if result.best is None else f"{result.best:.4g}{unit} in epoch {result.best_epoch}"
    out = arguments.out
    lines = [
        f"trained on {len(prepared.train.utterances):,} utterances ({prepared.train.seconds / 60:.1f} minutes), in "
        f"{result.seconds:.0f} s; validation {config.watch}: {best}",
        f"the model is in {out / 'checkpoints' / 'best'}; next: "
        f"manyformer asr evaluate {out} --report {out / 'report'}",
    ]
    if prepared.skipped:
        lines.insert(0, f"left out: {said(prepared.skipped)}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
