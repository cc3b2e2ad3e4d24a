"""The page of a study: the question, the answer, the pictures, the tables, how it was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.evaluation.plots import ForestRow, Point, forest, pareto, seed_scores
from core.evaluation.report import Cell, Report, Section, Tile, number
from core.study.analysis import Analysis
from core.study.results import COSTS, Comparison
from core.study.words import arrow, cost, estimate, interval, p_value, sentence, signed, verdict_of

_DASH = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What the page says besides what the analysis holds.

    Attributes:
        question: what was asked, one short sentence.
        asked: the same with the values that were compared.
        task, model: as in the ``manyformer`` command, and the network's name.
        split: the split that was scored.
        measured: how it was measured, in words, in the order of the page: such as ``{"Budget": "3 minutes a run",
            "Data": "bundled:digits", "Digest": "…", "Machine": "…", "Threads": "1", "Commit": "…"}``.
        command: what made the page, for the last line.
    """

    question: str
    task: str
    model: str
    split: str
    asked: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write_page(analysis: Analysis, facts: PageFacts, path: Path | str) -> Path:
    """Writes one self-contained HTML file, whole or not at all, and returns its path.

    Raises:
        InputError: it cannot be written there.
    """
    return page(analysis, facts).write(path)


def page(analysis: Analysis, facts: PageFacts) -> Report:
    """The page, not yet written."""
    ended = sum(arm.endings.finished for arm in analysis.arms)
    head: dict[str, Cell] = {
        "Decides": f"{analysis.primary} {arrow(analysis.greater_is_better[analysis.primary])} on {facts.split}",
        "Arms": len(analysis.arms),
        "Seeds": len(analysis.seeds),
        "Runs": f"{ended} of {len(analysis.arms) * len(analysis.seeds)} finished",
        _units(analysis).capitalize(): analysis.units,
    }
    report = Report(facts.question, f"{facts.model} · {facts.task}", facts=head, footer=facts.command)
    _answer(report, analysis, facts.asked)
    _effects(report, analysis)
    _costs(report, analysis)
    _arms(report, analysis)
    _numbers(report, analysis)
    _seeds(report, analysis)
    _method(report, analysis, facts)
    return report


def _units(analysis: Analysis) -> str:
    return "groups of rows" if analysis.grouped else "rows"


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(report: Report, analysis: Analysis, asked: str) -> None:
    named = analysis.labels()
    section = report.section("Answer", f"{asked} The baseline is {named[analysis.baseline]}.".lstrip())
    section.tiles(_tiles(analysis))
    for found in analysis.comparisons:
        section.text(sentence(found, analysis.primary, named))
    if analysis.main_effects:
        section.text("Each field by itself, averaged over the settings of the others:")
        for found in analysis.main_effects:
            section.text(sentence(found, analysis.primary, named))


def _tiles(analysis: Analysis) -> list[Tile]:
    found = analysis.comparisons
    counts = {word: sum(each.verdict == word for each in found) for word in ("better", "worse", "no effect seen")}
    lost = len(found) - sum(counts.values())
    verdicts = Tile(
        "Better than the baseline",
        f"{counts['better']} of {len(found)}",
        f"{counts['worse']} worse, {counts['no effect seen']} without an effect seen",
        note=f"{lost} could not be compared" if lost else "",
    )
    diverged = sum(arm.endings.diverged for arm in analysis.arms)
    runs = sum(arm.endings.runs for arm in analysis.arms)
    unfinished = [(sum(getattr(arm.endings, end) for arm in analysis.arms), end) for end in ("failed", "missing")]
    others = ", ".join(f"{count} {end}" for count, end in unfinished if count)
    stable = Tile("Trainings that diverged", f"{diverged} of {runs}", others)
    smallest = [each.smallest for each in found if math.isfinite(each.smallest)]
    if not smallest:
        return [verdicts, stable]
    surest = f"; in the surest one, {number(min(smallest))}" if len(smallest) > 1 else ""
    seen = Tile(
        f"Visible in every comparison, {analysis.primary}",
        number(max(smallest)),
        f"an effect as large is found four times in five{surest}",
    )
    return [verdicts, stable, seen]


# --- pictures ---------------------------------------------------------------------------------------------------------


def _effects(report: Report, analysis: Analysis) -> None:
    percent, primary = f"{100 * analysis.confidence:g} %", analysis.primary
    caption = (
        f"Thick: the {percent} interval of each effect alone. Thin: all of them hold together with {percent}. Shaded: "
        "effects too small to be found four times in five. Colour and marker follow the adjusted p-value: a filled "
        "circle is better, a square worse, an open diamond neither."
    )
    section = report.section("Effects")
    for against, found, below in (
        ("the baseline", analysis.comparisons, caption),
        ("the first value", analysis.main_effects, "Each field by itself, averaged over the settings of the others."),
    ):
        if found:
            drawn = forest(
                [_row(each, analysis) for each in found],
                label=f"{primary} to {against}",
                greater_is_better=analysis.greater_is_better[primary],
            )
            section.figure(drawn, alt=f"Effects on {primary} with intervals", caption=below)


def _row(found: Comparison, analysis: Analysis) -> ForestRow:
    effect = found.effects[analysis.primary]
    beside = [f"{found.verdict}, p {p_value(found.p_adjusted, '= ')}"]
    if not math.isfinite(found.p_adjusted):
        beside = [str(found.verdict)]
    if found.unstable:
        most = max(found.endings, found.endings_against, key=lambda endings: endings.diverged)
        whose = "" if most is found.endings else "its baseline "
        beside.append(f"{whose}diverged in {most.diverged} of {most.runs} seeds")
    return ForestRow(
        name=analysis.labels()[found.name],
        value=effect.value,
        low=effect.low,
        high=effect.high,
        wide_low=found.low,
        wide_high=found.high,
        smallest=found.smallest,
        verdict=found.verdict,
        beside="\n".join(beside),
    )


def _costs(report: Report, analysis: Analysis) -> None:
    primary, named = analysis.primary, analysis.labels()
    caption = (
        "Means over the seeds; the bars are the intervals of each arm by itself, wider than those of the paired "
        "effects. Joined: the arms that no other one beats at the same cost or less, by their means alone. Open: some "
        "trainings did not end."
    )
    section = report.section("Quality and cost")
    for name, title in (("seconds", "Seconds of training"), ("parameters", "Parameters")):
        points = [
            Point(
                name=named[arm.name],
                cost=arm.costs[name].mean,
                value=arm.levels[primary].value,
                low=arm.levels[primary].low,
                high=arm.levels[primary].high,
                front=arm.name in analysis.fronts[name],
                hollow=bool(arm.endings.trouble),
            )
            for arm in analysis.arms
        ]
        costs = {point.cost for point in points if math.isfinite(point.cost)}
        if len(costs) > 1:
            drawn = pareto(points, label=primary, cost=title, greater_is_better=analysis.greater_is_better[primary])
            section.figure(drawn, alt=f"{primary} against {title.lower()}", caption=caption)
            caption = ""  # said once
        elif costs:
            section.text(f"All arms have the same cost: {COSTS[name].lower()} {number(costs.pop())}.")


def _seeds(report: Report, analysis: Analysis) -> None:
    primary, named = analysis.primary, analysis.labels()
    nan = float("nan")
    scores = {named[arm.name]: [arm.scores[primary].get(s, nan) for s in analysis.seeds] for arm in analysis.arms}
    drawn = seed_scores(
        scores,
        label=primary,
        greater_is_better=analysis.greater_is_better[primary],
        beside=[arm.endings.trouble for arm in analysis.arms],
    )
    section = report.section("Every training")
    section.figure(
        drawn,
        alt=f"{primary} of every training",
        caption="One dot a training, the bar their mean; the dotted line is the mean of the baseline.",
    )
    columns = ["Arm", *(f"seed {seed}" for seed in analysis.seeds)]
    rows = [[name, *(None if math.isnan(value) else value for value in values)] for name, values in scores.items()]
    section.table(columns, rows, caption=f"{primary} of every training")


# --- tables -----------------------------------------------------------------------------------------------------------


def _arms(report: Report, analysis: Analysis) -> None:
    percent, named = f"{100 * analysis.confidence:g} %", analysis.labels()
    section = report.section("Arms")
    heads = [f"{name} {arrow(greater)}" for name, greater in analysis.greater_is_better.items()]
    section.table(
        ["Arm", *heads],
        ([named[arm.name], *map(estimate, arm.levels.values())] for arm in analysis.arms),
        caption=f"Mean over the seeds, with the {percent} interval for another test set and other seeds",
    )
    section.table(
        ["Arm", *COSTS.values(), "Seeds"],
        (
            [
                named[arm.name],
                *(cost(arm.costs[name], counted=name == "parameters") for name in COSTS),
                arm.endings.trouble or f"{arm.endings.finished} finished",
            ]
            for arm in analysis.arms
        ),
        caption=f"Cost of a run; in brackets the ratio to the baseline, paired by seed, with its {percent} interval",
    )
    reasons = [(named[arm.name], reason) for arm in analysis.arms for reason in arm.reasons]
    if reasons:
        section.table(["Arm", "What happened"], reasons, caption="Trainings that did not finish")


def _numbers(report: Report, analysis: Analysis) -> None:
    percent = f"{100 * analysis.confidence:g} %"
    section = report.section("Effects in numbers")
    heads = ["", "Effect", percent, f"{percent} together", "p", "Adjusted p", "Verdict", "Smallest visible"]
    for title, found in (("against the baseline", analysis.comparisons), ("by field", analysis.main_effects)):
        if found:
            section.table(heads, _primary_rows(found, analysis), caption=f"{analysis.primary}, {title}")
    others = [name for name in analysis.greater_is_better if name != analysis.primary]
    if others:
        heads = ["", *(f"{name} {arrow(analysis.greater_is_better[name])}" for name in others)]
        rows = [
            [_name(found, analysis), *(_effect(found, name) for name in others)]
            for found in (*analysis.comparisons, *analysis.main_effects)
        ]
        caption = f"Other metrics: {percent} intervals of each alone. Not adjusted, and no verdict: hints, not findings"
        section.table(heads, rows, caption=caption)


def _primary_rows(found: Sequence[Comparison], analysis: Analysis) -> Iterable[Sequence[str]]:
    for each in found:
        effect = each.effects[analysis.primary]
        yield [
            _name(each, analysis),
            signed(effect.value, effect.low, effect.high) if effect.seeds else _DASH,
            interval(effect.low, effect.high, "+"),
            interval(each.low, each.high, "+"),
            *(p_value(p).replace(" ", "\N{NO-BREAK SPACE}") for p in (effect.p, each.p_adjusted)),
            verdict_of(each),
            number(each.smallest) if math.isfinite(each.smallest) else _DASH,
        ]


def _name(found: Comparison, analysis: Analysis) -> str:
    named = analysis.labels()
    return named[found.name] if found.settings == 1 else f"{named[found.name]} (not {named[found.against]})"


def _effect(found: Comparison, name: str) -> str:
    effect = found.effects[name]
    if not effect.seeds:
        return _DASH
    return f"{signed(effect.value, effect.low, effect.high)} {interval(effect.low, effect.high, '+')}"


# --- how it was measured ----------------------------------------------------------------------------------------------


def _method(report: Report, analysis: Analysis, facts: PageFacts) -> None:
    section = report.section("How it was measured")
    seeds = ", ".join(map(str, analysis.seeds))
    rows = [("Split", facts.split), ("Seeds", seeds), (_units(analysis).capitalize(), f"{analysis.units:,}")]
    section.table(["What", "How"], [*facts.measured.items(), *rows])
    section.text(
        f"Every effect is the mean over the seeds of the difference of two trainings with the same seed, scored on the "
        f"same {_units(analysis)}. Its interval counts two things that chance decided: the {_units(analysis)} of the "
        "split (bootstrap) and the seeds of training (the spread of the differences). With few seeds it is wide, and "
        "has to be."
    )
    section.text(
        f"Only {analysis.primary} decides. Its p-values are adjusted by Holm's method for all comparisons of a "
        f"picture: if no arm differed from the baseline, the chance of calling any of them better or worse would be at "
        f"most {100 * (1 - analysis.confidence):.0f} %."
    )
    _limits(section, analysis)


def _limits(section: Section, analysis: Analysis) -> None:
    section.text(
        "What it could not have seen: effects in the shaded bands. No effect seen is not the same as no effect. The "
        "page speaks of these data, this budget and these settings; another budget may turn an order."
    )
    about: dict[str, list[str]] = {}
    for found in (*analysis.comparisons, *analysis.main_effects):
        if note := found.effects[analysis.primary].note:
            about.setdefault(note, []).append(_name(found, analysis))
    if about:
        rows = [("; ".join(names), note) for note, names in about.items()]
        section.table(["Effect", "To be known"], rows, caption="Remarks on single intervals")
