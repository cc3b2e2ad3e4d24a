"""``manyformer asr evaluate``: error rates with intervals, beside a floor on the same utterances, and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apps.asr.config import AsrConfig
from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import Corpus, load_corpus
from apps.asr.metrics import Scores, compared, scores
from apps.asr.recogniser import TASK, Recogniser, Transcript, load_run
from apps.asr.report import write_report
from core.artefact import replace_file
from core.command import EvaluateArguments, RunDirectory, data_facts, parse_arguments, run, say
from core.command.environment import environment
from core.errors import InputError, nearest
from core.evaluation.bootstrap import Difference
from core.evaluation.results import Baseline, Result, notes, score_lines

BASELINE = "the most frequent training sentence, whatever is said"


@dataclass(frozen=True, kw_only=True)
class Arguments(EvaluateArguments):
    """Score a trained recogniser on utterances it has not heard, with 95 % intervals and a floor beside it."""


@dataclass(frozen=True)
class Evaluation:
    """What was found, for the page: the record, and what it was found from."""

    result: Result
    corpus: Corpus
    recogniser: Recogniser
    utterances: tuple[Utterance, ...]
    references: tuple[str, ...]
    transcripts: tuple[Transcript, ...]
    scores: Scores
    differences: dict[str, Difference]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer asr evaluate")
    recogniser = load_run(arguments.run)
    facts, config = data_facts(RunDirectory.open(arguments.run, task=TASK)), recogniser.config
    corpus = load_corpus(arguments.data or facts["data"], on_bad=config.on_bad)
    if not corpus.splits.get(arguments.split):
        mend = nearest(arguments.split, [*corpus.splits])
        raise InputError(f"there is no split {arguments.split!r}", where=corpus.name, mend=mend)
    evaluation = evaluate(recogniser, corpus, arguments.split, _training_texts(facts, corpus, config))
    say(_lines(evaluation))
    if arguments.json is not None:
        replace_file(arguments.json, evaluation.result.json())
    if arguments.report is not None:
        say(f"report: {write_report(evaluation, arguments.run, arguments.report / 'index.html')}")


def evaluate(recogniser: Recogniser, corpus: Corpus, split: str, training_texts: Sequence[str] | None) -> Evaluation:
    """Score a recogniser on a split; ``training_texts`` are for the floor, None to do without.

    Raises:
        InputError: an utterance has no text, or cannot be read.
    """
    utterances = corpus.splits[split]
    references = tuple(reference(recogniser, utterance) for utterance in utterances)
    started = time.perf_counter()
    transcripts = tuple(recogniser.stream(utterances))
    wall = time.perf_counter() - started
    seconds = [transcript.seconds for transcript in transcripts]
    speakers = [utterance.speaker for utterance in utterances]
    texts = [transcript.text for transcript in transcripts]
    found = scores(references, texts, speakers, seconds)
    baseline, differences = None, {}
    if training_texts:
        floor = [majority(training_texts, recogniser)] * len(references)
        baseline = Baseline(name=BASELINE, metrics=scores(references, floor, speakers, seconds).metrics)
        differences = compared(references, texts, floor, speakers)
    result = Result(
        task=TASK,
        model="squeezeformer",
        split=split,
        n=len(utterances),
        metrics=found.metrics,
        baseline=baseline,
        speed={
            "real_time_factor": wall / sum(seconds),
            "audio_seconds": sum(seconds),
            "seconds": wall,
            "threads": torch.get_num_threads(),
        },
        environment=environment(),
    )
    return Evaluation(result, corpus, recogniser, utterances, references, transcripts, found, differences)


def majority(texts: Sequence[str], recogniser: Recogniser) -> str:
    """The most frequent text, of those the one that is nearest to the middle in length, then the first by name.

    >>> class Same:
    ...     class tokenizer:
    ...         normalise = str.lower
    >>> majority(["b c", "A", "a", "d e f g"], Same)
    'a'
    """
    counts = Counter(recogniser.tokenizer.normalise(text) for text in texts)
    lengths = sorted(len(text.split()) for text in counts.elements())
    middle = lengths[len(lengths) // 2]
    return min(counts, key=lambda text: (-counts[text], abs(len(text.split()) - middle), text))


def reference(recogniser: Recogniser, utterance: Utterance) -> str:
    """What was said, in the form that is scored.

    Raises:
        InputError: nobody wrote it down.
    """
    if not utterance.text:
        raise InputError("has no text to score against", where=str(utterance.path), mend="add it, or leave it out")
    return recogniser.tokenizer.normalise(utterance.text)


def _training_texts(facts: dict[str, Any], corpus: Corpus, config: AsrConfig) -> list[str] | None:
    """The texts that the run was trained on, if they can still be had unchanged."""
    if corpus.name != facts["data"]:
        try:
            corpus = load_corpus(facts["data"], on_bad=config.on_bad)
        except InputError:
            return None
    if corpus.digests.get("train") != facts["digest"].get("train"):
        return None
    return [utterance.text for utterance in corpus.splits["train"] if utterance.text]


def _lines(evaluation: Evaluation) -> str:
    """The scores for a terminal."""
    result, speed = evaluation.result, evaluation.result.speed
    kind = ", synthetic speech" if evaluation.corpus.synthetic else ""
    lines = [f"{result.model} on {result.n:,} utterances of {result.split}{kind}, in %, with 95 % intervals"]
    lines += score_lines(result, evaluation.differences)
    found = evaluation.scores
    counts = found.words
    lines.append(
        f"  of {counts.symbols:,} words: {counts.substitutions:,} substituted, {counts.deletions:,} deleted, "
        f"{counts.insertions:,} inserted; {found.correct:,} utterances without an error"
    )
    lines.append(f"  intervals: from resampling {found.units}")
    if result.baseline is not None:
        lines.append(f"  baseline: {result.baseline.name}; p: of no difference to it")
    else:
        lines.append("  no baseline: the texts that the run was trained on are not there any more")
    lines.append(
        f"  {speed['audio_seconds']:.0f} s of audio in {speed['seconds']:.3g} s: real-time factor "
        f"{speed['real_time_factor']:.3g} with {speed['threads']} thread{'s' * (speed['threads'] != 1)}"
    )
    return "\n".join([*lines, *(f"  note: {note}" for note in notes(result.metrics))])


if __name__ == "__main__":
    raise SystemExit(main())
