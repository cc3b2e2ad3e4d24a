"""The results of :mod:`benchmarks.tabular.quality` as one JSON, one Markdown file and critical-difference pictures.

    python -m benchmarks.tabular.table --data DIR --runs results/tabular/quality/runs --out results/tabular/quality.json

Nothing is trained: stored predictions are scored against the targets in the data folder. Rows whose method's code is
newer than the code they were measured with carry a dagger.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.record import provenance, write_json
from benchmarks.common.table import markdown, write_text
from benchmarks.tabular.runs import Run, load_all
from benchmarks.tabular.summary import SMALL_ROWS, gather, summarise
from core.evaluation.plots.ranking import plot_critical_difference
from core.evaluation.plots.style import svg

STALE = "†"
ABSENT = "n/a"


def main(argv: Sequence[str] | None = None) -> int:
    """Score the runs and write everything beside ``--out``; status 2 when there is no run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular.table", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets: the targets are read from it")
    parser.add_argument("--runs", type=Path, default=Path("results/tabular/quality/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/tabular/quality.json"))
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args(argv)
    runs = load_all(options.runs)
    if not runs:
        print(f"{options.runs}: no runs; run benchmarks.tabular.quality first", file=sys.stderr)
        return 2
    summary = summarise(gather(options.data, runs), options.resamples)
    write_json(options.out, {"provenance": origin(runs), **summary})
    write_text(options.out.with_suffix(".md"), "\n".join(sections(summary)))
    for group, ranking in summary["ranks"].items():
        if ranking is not None:
            write_text(options.out.with_name(f"{options.out.stem}-ranks-{group}.svg"), picture(ranking))
    return 0


def origin(runs: Sequence[Run]) -> dict[str, Any]:
    """What produced this table, and the conditions of the runs it is made from (one value each, if they agree)."""
    records = [run.record for run in runs]
    return {
        **provenance(threads=1, packages=("scikit-learn", "scipy")),
        "runs": {
            "count": len(records),
            "threads": sorted({record["key"]["threads"] for record in records}),
            "minutes": sorted({record["key"]["minutes"] for record in records}),
            "seeds": sorted({record["key"]["seed"] for record in records}),
            "commits": sorted({str(record["provenance"]["commit"]) for record in records}),
            "processors": sorted({record["provenance"]["machine"]["processor"] for record in records}),
        },
    }


def picture(ranking: dict[str, Any]) -> str:
    """Demšar's critical-difference picture, as SVG."""
    average = ranking["average"]
    return svg(
        plot_critical_difference(np.array(list(average.values())), list(average), ranking["critical_difference"])
    )


def sections(summary: dict[str, Any]) -> Iterator[str]:
    """The Markdown file, part by part."""
    yield "## Average rank\n"
    yield rank_table(summary)
    if summary["versus"]:
        yield "## Against the other methods\n"
        yield versus_table(summary["versus"])
    if best := summary["versus"].get("best boosted"):
        yield "## Against the boosted method chosen on validation rows\n"
        yield paired_table(best["sets"], summary["sets"])
    yield "## Cost\n"
    yield cost_table(summary["cost"])
    yield "## Test score, set by set\n"
    yield score_table(summary)
    yield "## Fit, seconds of wall time\n"
    yield seconds_table(summary)


def rank_table(summary: dict[str, Any]) -> str:
    """Average ranks over the small sets and over all, best first."""
    small, every = (summary["ranks"][group] for group in ("small", "all"))
    if every is None:
        return "Too few complete sets for ranks.\n"
    order = sorted(every["average"], key=lambda name: every["average"][name])
    rows = [
        (name, ABSENT if small is None else f"{small['average'][name]:.2f}", f"{every['average'][name]:.2f}")
        for name in order
    ]
    rows += [_ranking_row("sets", small, every, lambda ranking: str(len(ranking["sets"])))]
    rows += [_ranking_row("Friedman p", small, every, lambda ranking: f"{ranking['friedman']['p']:.2g}")]
    rows += [_ranking_row("critical difference", small, every, lambda ranking: f"{ranking['critical_difference']:.2f}")]
    return markdown(("method", f"under {SMALL_ROWS:,} rows", "all sets"), rows)


def _ranking_row(name: str, small: Any, every: Any, text: Any) -> tuple[str, str, str]:
    return name, ABSENT if small is None else text(small), text(every)


def versus_table(versus: dict[str, Any]) -> str:
    """Wins, ties and losses of the headline method."""
    rows = [(other, *(str(count[key]) for key in ("win", "tie", "loss"))) for other, count in versus.items()]
    return markdown(("against", "won", "tied", "lost"), rows)


def paired_table(rows: dict[str, Any], sets: dict[str, Any]) -> str:
    """Paired differences with their intervals and the smallest effect that the test could have seen."""
    lines = [
        (
            name,
            row["other"],
            sets[name]["metric"],
            f"{_short(row['a'])} to {_short(row['b'])}",
            f"{_signed(row['value'])} [{_signed(row['low'])}, {_signed(row['high'])}]",
            _short(row["smallest_effect"]),
            row["outcome"],
        )
        for name, row in rows.items()
    ]
    return markdown(("set", "other", "metric", "scores", "difference", "smallest visible effect", "outcome"), lines)


def cost_table(cost: dict[str, Any]) -> str:
    """Gain over the linear baseline, processor seconds, and their ratio."""
    rows = [
        (
            name,
            f"{row['gain_percent']:.1f}",
            f"{row['fit_cpu_seconds']:.1f}",
            ABSENT if row["cpu_seconds_per_point"] is None else f"{row['cpu_seconds_per_point']:.2f}",
            f"{row['peak_mib']:.0f}",
        )
        for name, row in cost["methods"].items()
    ]
    header = ("method", "error removed, %", "CPU s to fit", "CPU s per point", "largest peak, MiB")
    count = len(cost["sets"])
    note = f"Means over the {count} sets where every method finished; the error removed is the linear baseline's."
    return markdown(header, rows) + f"\n{note}\n"


def score_table(summary: dict[str, Any]) -> str:
    """Primary test score of every method on every set, with its interval."""
    rows = [
        (
            name,
            info["metric"],
            *(score_cell(info["methods"].get(method), info["metric"]) for method in summary["methods"]),
        )
        for name, info in summary["sets"].items()
    ]
    note = f"Mean over seeds [95 % interval over test rows]. {STALE} measured with older code of the method."
    return markdown(("set", "metric", *summary["methods"]), rows) + f"\n{note}\n"


def score_cell(result: dict[str, Any] | None, metric: str) -> str:
    """One method's score on one set, marked where it is older than its code."""
    if result is None:
        return ""
    mark = STALE if result["stale"] else ""
    if metric not in result["scores"]:
        return f"not finished{mark}"
    score = result["scores"][metric]
    return f"{_short(score['value'])} [{_short(score['low'])}, {_short(score['high'])}]{mark}"


def seconds_table(summary: dict[str, Any]) -> str:
    """Wall seconds of fitting, mean over seeds."""
    rows = [
        (name, *(_seconds(info["methods"].get(method)) for method in summary["methods"]))
        for name, info in summary["sets"].items()
    ]
    note = "Mean over seeds; * ended by the wall limit in at least one of them, with the best weights so far."
    return markdown(("set", *summary["methods"]), rows) + f"\n{note}\n"


def _seconds(result: dict[str, Any] | None) -> str:
    if result is None or result["fit_seconds"] is None:
        return ""
    return f"{result['fit_seconds']:.1f}" + ("*" if result["stopped_by_limit"] else "")


def _short(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.3g}"


if __name__ == "__main__":
    sys.exit(main())
