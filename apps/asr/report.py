"""The page of an evaluation: rates, recordings with what was heard in them, errors, and how it learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from apps.asr.data.audio import read_audio
from apps.asr.metrics import LENGTHS, RATE, Edits, Step, alignment, edits
from apps.asr.pictures import spectrogram
from core.command import RunDirectory, read_history
from core.evaluation import plots
from core.evaluation.bootstrap import Estimate, bootstrap
from core.evaluation.report import Line, Mark, Report, Section, Tile
from core.evaluation.results import notes

if TYPE_CHECKING:
    from apps.asr.evaluate import Evaluation

_TITLES = {"wer": "Word error rate, %", "cer": "Character error rate, %"}
_SEEN = {"train": ": it was trained on them", "valid": ": they chose its weights", "test": ", new to it"}
_PICTURES, _LISTED, _SPEAKERS, _CONFUSIONS = 3, 20, 30, 15
_LONGEST = 12.0
"""Seconds of a recording that a picture can show."""


def write_report(evaluation: Evaluation, run: Path, path: Path) -> Path:
    """Write the page and return its path."""
    result = evaluation.result
    kind = "Synthetic speech: the rates say that the program works, not how well it hears people. "
    report = Report(
        "Speech recognition",
        f"Squeezeformer on {result.n:,} utterances of {result.split}{_SEEN.get(result.split, '')}",
        facts=_facts(evaluation),
        footer=f"manyformer asr evaluate {run} --split {result.split}",
    )
    _quality(report.section("Quality", kind if evaluation.corpus.synthetic else ""), evaluation)
    order = _by_errors(evaluation)
    _recordings(report.section("Recordings"), evaluation, order)
    _errors(report.section("Errors"), evaluation, order)
    _groups(report, evaluation)
    _learning(report, run)
    return report.write(path)


def _facts(evaluation: Evaluation) -> dict[str, str | int | float]:
    model, speed = evaluation.recogniser.model, evaluation.result.speed
    return {
        "Corpus": evaluation.corpus.name,
        "Minutes of audio": round(speed["audio_seconds"] / 60, 1),
        "Speakers": len({one.speaker for one in evaluation.utterances if one.speaker is not None}) or "unknown",
        "Parameters": sum(parameter.numel() for parameter in model.parameters()),
        "Outputs": model.outputs,
        "Real-time factor": speed["real_time_factor"],
        "Threads": speed["threads"],
    }


def _quality(section: Section, evaluation: Evaluation) -> None:
    result = evaluation.result
    baseline = {} if result.baseline is None else dict(result.baseline.metrics)
    section.tiles(Tile.of(_TITLES[name], result.metrics[name], baseline.get(name), "floor") for name in _TITLES)
    rows = [
        (_TITLES[name], estimate, baseline.get(name), evaluation.differences.get(name))
        for name, estimate in result.metrics.items()
    ]
    floor = "No floor: the training texts are gone" if result.baseline is None else f"Floor: {result.baseline.name}"
    caption = (
        f"Smaller is better; errors over all words (characters) of the split. 95 % bootstrap intervals over "
        f"{evaluation.scores.units}. {floor}."
    )
    section.table(("Metric", "Squeezeformer", "Floor", "Difference"), rows, caption=caption)
    section.text(_counts(evaluation))
    for text in notes(result.metrics):
        section.text(f"Note: {text}.")


def _counts(evaluation: Evaluation) -> str:
    found = evaluation.scores
    words = found.words
    text = (
        f"Of {words.symbols:,} words {words.hits:,} are right, {words.substitutions:,} were taken for others, "
        f"{words.deletions:,} not heard, and {words.insertions:,} heard that were not said; {found.correct:,} of "
        f"{found.utterances:,} utterances have no error."
    )
    if found.silent:
        text += f" In {found.silent:,} utterances without words, {found.silent_insertions:,} words were heard."
    return text


def _by_errors(evaluation: Evaluation) -> list[int]:
    """Utterances from the most errors a word to the fewest; equal ones in their order."""
    rates = [_edits(evaluation, index).rate for index in range(len(evaluation.references))]
    return sorted(range(len(rates)), key=lambda index: -rates[index] if rates[index] == rates[index] else 1.0)


def _edits(evaluation: Evaluation, index: int) -> Edits:
    return edits(evaluation.references[index].split(), evaluation.transcripts[index].text.split())


def _recordings(section: Section, evaluation: Evaluation, order: list[int]) -> None:
    """A bad, a middling and a good one, as the network reads them."""
    section.text(
        "What the network reads, and the words over the stretch where it heard them; orange where it gave them less "
        "than 80 %. From top to bottom: among the most errors, in the middle, among the fewest."
    )
    short = [index for index in order if 0 < evaluation.transcripts[index].seconds <= _LONGEST]
    places = sorted({round(share * (len(short) - 1)) for share in (0.05, 0.5, 0.95)}) if short else []
    for place in places:
        index = short[place]
        utterance, transcript = evaluation.utterances[index], evaluation.transcripts[index]
        audio = read_audio(utterance)
        features, _ = evaluation.recogniser.features(audio[None], torch.tensor([len(audio)]))
        picture = spectrogram(features[0].numpy(), transcript.words)
        section.figure(picture, alt=f"Spectrogram: {transcript.text}")
        _compare(section, evaluation, index)


def _compare(section: Section, evaluation: Evaluation, index: int) -> None:
    """What was said above what was heard, with the differences marked."""
    steps = alignment(evaluation.references[index].split(), evaluation.transcripts[index].text.split())
    said = tuple((step.reference, _mark(step, "missing")) for step in steps if step.reference is not None)
    heard = tuple((step.hypothesis, _mark(step, "extra")) for step in steps if step.hypothesis is not None)
    utterance, count = evaluation.utterances[index], _edits(evaluation, index)
    speaker = f", {utterance.speaker}" if utterance.speaker else ""
    errors, words = f"error{'s' * (count.errors != 1)}", f"word{'s' * (count.symbols != 1)}"
    caption = f"{utterance.key}{speaker}: {count.errors} {errors} in {count.symbols} {words}"
    section.comparison([Line("said", said), Line("heard", heard)], caption=caption)


def _mark(step: Step, other: Mark) -> Mark:
    return "same" if step.kind == "hit" else other


def _errors(section: Section, evaluation: Evaluation, order: list[int]) -> None:
    wrong = [index for index in order if _edits(evaluation, index).errors]
    if not wrong:
        section.text("There are none.")
        return
    confusions = evaluation.scores.confusions
    rows = [(said, heard, count) for said, heard, count in confusions.substitutions[:_CONFUSIONS]]
    rows += [(word, "\N{EN DASH}", count) for word, count in confusions.deletions[:_CONFUSIONS]]
    rows += [("\N{EN DASH}", word, count) for word, count in confusions.insertions[:_CONFUSIONS]]
    rows = sorted(rows, key=lambda row: -row[2])[:_CONFUSIONS]
    caption = "The commonest errors. A dash: nothing was said, or nothing was heard."
    section.table(("Said", "Heard", "Times"), rows, caption=caption)
    listed = wrong[:_LISTED]
    section.text(f"{len(listed)} of {len(wrong):,} utterances with errors, those with the most errors a word first.")
    for index in listed:
        _compare(section, evaluation, index)


def _groups(report: Report, evaluation: Evaluation) -> None:
    section = report.section("Speakers and lengths")
    speakers = [one.speaker for one in evaluation.utterances]
    if len(evaluation.scores.speakers) > 1:
        worst = [group.name for group in evaluation.scores.speakers[:_SPEAKERS]]
        more = len(evaluation.scores.speakers) - len(worst)
        _rates(section, evaluation, speakers, worst, "speaker", f"; {more} better ones are left out" if more else "")
    lengths = [group.name for group in evaluation.scores.lengths]
    _rates(section, evaluation, _length_groups(evaluation), lengths, "length of the recording")


def _length_groups(evaluation: Evaluation) -> list[str | None]:
    """The name of each utterance's group by length; the groups are those bins that hold anything."""
    seconds = [transcript.seconds for transcript in evaluation.transcripts]
    bins = np.searchsorted(LENGTHS[1:], seconds, side="right").tolist()
    held = sorted({place for place, said in zip(bins, evaluation.references, strict=True) if said})
    names = {place: group.name for place, group in zip(held, evaluation.scores.lengths, strict=True)}
    return [names.get(place) for place in bins]


def _rates(
    section: Section,
    evaluation: Evaluation,
    labels: Sequence[str | None],
    shown: Sequence[str],
    what: str,
    more: str = "",
) -> None:
    """Word error rates of the groups ``shown``."""
    counts = [_edits(evaluation, index) for index in range(len(labels))]
    rates: dict[str, Estimate] = {}
    sizes: dict[str, int] = {}
    for name in shown:
        own = [count for count, label in zip(counts, labels, strict=True) if label == name and count.symbols]
        symbols, errors = np.array([[count.symbols, count.errors] for count in own], dtype=np.float64).T
        rates[name], sizes[name] = bootstrap(RATE, symbols, errors), int(symbols.sum())
    whole = evaluation.result.metrics["wer"].value
    section.figure(
        plots.rates_by_group(rates, label=_TITLES["wer"], whole=whole, counts=sizes),
        alt=f"Word error rate by {what}",
        caption=f"By {what}, in brackets the words said; 95 % intervals over utterances, dotted the whole split{more}.",
    )


def _learning(report: Report, run: Path) -> None:
    history = read_history(RunDirectory(run).metrics)
    if not history:
        return  # a run that was out of time before its first epoch ended
    section = report.section("Learning")
    renamed = {"train_loss": "training", "loss": "validation"}
    records = [{renamed.get(key, key): value for key, value in record.items()} for record in history]
    panels = {"Loss, nats an utterance": ["training", "validation"], "Error rate, %": ["wer", "cer"]}
    caption = "Epoch by epoch; error rates are those of the validation utterances."
    section.figure(plots.learning_curves(records, panels), alt="Learning curves", caption=caption)
