"""What a search found: the best settings as a config, a table, and a page with the history and what mattered."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.artefact import replace_file
from core.command import config_to_dict, read_facts, say, to_json, yaml12
from core.errors import InputError
from core.evaluation.report import Cell, Report, number
from core.study.grid import changed, shown
from core.study.search import Searched

TOP = 10


def tell(study: Any, space: Sequence[Searched], base: Any, folder: Path, *, json: Path | None) -> None:
    """Writes ``best.yaml``, ``results.json`` and the page, and says the best trials.

    Args:
        study: of Optuna.
        space: what was searched.
        base: config of all trials.
        folder: of the search.
        json: another place for the results.

    Raises:
        InputError: no trial has finished.
    """
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not finished:
        reasons = [trial.user_attrs["reason"] for trial in study.trials if "reason" in trial.user_attrs]
        raise InputError(
            "no trial has finished", where=str(folder), mend=f"the first one: {reasons[0]}" if reasons else None
        )
    finished.sort(key=lambda trial: trial.value, reverse=study.direction.name == "MAXIMIZE")
    best = finished[0]
    values = {each.field: each.value(best.params[each.field]) for each in space}
    config = changed(base, {**values, "fit.max_epochs": best.user_attrs["max_epochs"]})
    replace_file(folder / "best.yaml", yaml12.dump(config_to_dict(config)))
    importances = _importances(study)
    for path in (folder / "results.json", *([json] if json else [])):
        replace_file(path, to_json(_results(study, best, importances)) + "\n")
    page = _page(study, finished, importances, folder).write(folder / "report" / "index.html")
    rows = [_row(trial) for trial in finished[:TOP]]
    lines = ["  ".join(map(str, row)) for row in [("trial", "value", "epochs", "seconds", "settings"), *rows]]
    states = {name: sum(trial.state.name == name for trial in study.trials) for name in ("PRUNED", "FAIL")}
    lines.append(f"{len(finished)} trials finished, {states['PRUNED']} pruned or diverged, {states['FAIL']} failed")
    say("\n".join([*lines, f"the best settings are in {folder / 'best.yaml'}; the page is {page}"]))


def _row(trial: Any) -> tuple[Any, ...]:
    facts = trial.user_attrs
    return trial.number, number(trial.value), facts["max_epochs"], number(facts["seconds"]), _settings(trial)


def _settings(trial: Any) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in trial.params.items())


def _importances(study: Any) -> dict[str, float]:
    """Share of the differences between trials that each field explains; empty where too few trials tell."""
    import optuna

    values = {trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    if len(values) < 4:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _results(study: Any, best: Any, importances: dict[str, float]) -> dict[str, Any]:
    return {
        "format": "manyformer-search-results",
        "direction": study.direction.name.lower(),
        "best": {"trial": best.number, "value": best.value, "params": best.params, **best.user_attrs},
        "importances": importances,
        "trials": [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "params": trial.params,
                **trial.user_attrs,
            }
            for trial in study.trials
        ],
    }


def _page(study: Any, finished: Sequence[Any], importances: dict[str, float], folder: Path) -> Report:
    facts: dict[str, Cell] = {"Trials": len(study.trials), "Finished": len(finished), "Best": number(finished[0].value)}
    subtitle = f"by their validation number, to {study.direction.name.lower()}"
    command = shlex.join(read_facts(folder / "search.json")["environment"]["command"])
    report = Report("Search for settings", subtitle, facts=facts, footer=command)
    section = report.section(
        "History",
        "The best validation number of each trial. The best of many looks better than it is: compare its settings with "
        "the former ones on data that no trial has seen.",
    )
    section.figure(_history(study), alt="validation number by trial, with the best so far")
    columns = ["trial", "value", "epochs", "seconds", "settings"]
    report.section("Best trials").table(columns, [_row(trial) for trial in finished[:TOP]])
    if importances:
        section = report.section(
            "What mattered",
            "The share of the differences between finished trials that a field explains (functional ANOVA), within the "
            "ranges that were searched.",
        )
        section.table(["field", "share"], [[name, share] for name, share in importances.items()])
    rows = [[trial.number, trial.user_attrs["reason"], _settings(trial)] for trial in _unfinished(study)]
    if rows:
        report.section("Trials that did not finish").table(["trial", "reason", "settings"], rows)
    return report


def _unfinished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if "reason" in trial.user_attrs]


def _history(study: Any) -> Any:
    from core.evaluation.plots.style import COLOURS, MUTED, legend, single

    drawn, axes = single()
    ended = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    best = max if study.direction.name == "MAXIMIZE" else min
    values = [trial.value for trial in ended]
    axes.plot([t.number for t in ended], values, "o", color=COLOURS[0], label="finished")
    if pruned:
        last = [t.intermediate_values[max(t.intermediate_values)] for t in pruned]
        axes.plot([t.number for t in pruned], last, "x", color=MUTED, label="pruned")
    so_far = [best(values[: i + 1]) for i in range(len(values))]
    axes.step([t.number for t in ended], so_far, where="post", color=COLOURS[1], label="best so far")
    axes.set(xlabel="trial", ylabel="validation number")
    legend(axes)
    return drawn
