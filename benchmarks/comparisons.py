"""A finished study of ``manyformer compare`` as a results file, for the documents.

    manyformer compare tabular --data DIR/wine_quality --vary ... --out STUDY
    python -m benchmarks.comparisons STUDY --out results/comparisons/tabular-wine_quality.json

Nothing is computed here: what the study's ``results.json`` says is written down with its provenance and as a table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.record import machine, public_words, write_json
from benchmarks.common.table import markdown, write_text
from core.command import read_facts
from core.errors import InputError

HEADER = (
    *("change", "effect [95 %]", "all together", "adjusted p", "verdict", "smallest visible", "seconds", "parameters"),
    "did not end",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the JSON and the table of one study; status 2 where it is not complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparisons", description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        results, plan = (read_facts(options.study / name) for name in ("results.json", "study.json"))
        payload = gathered(results, plan)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, payload)
    write_text(options.out.with_suffix(".md"), "\n".join(sections(payload)))
    return 0


def gathered(results: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """The results with what they were measured on and with.

    Raises:
        InputError: runs are missing.
    """
    if results["missing"]:
        raise InputError(f"{results['missing']} runs are missing", mend="let the same compare command finish")
    provenance = provenance_of(plan, results.get("commits"))
    data = {"name": Path(plan["source"]["data"]).name, "digests": plan["digests"]}
    return {"provenance": provenance, "data": data, **results}


def provenance_of(plan: Mapping[str, Any], commits: Sequence[str] | None = None) -> dict[str, Any]:
    """What the runs of a study were made with.

    Args:
        plan: the content of its ``study.json``.
        commits: of the runs; that of the first call unless given.
    """
    environment = plan["environment"]
    return {
        "command": " ".join(["manyformer", *public_words(environment["command"][1:])]),
        "commit": environment["commit"],
        "machine": machine(),
        "threads": plan["threads"],
        "runs": {
            "commits": commits or [environment["commit"]],
            "threads": [plan["threads"]],
            "seeds": plan["seeds"],
            "minutes": [] if plan["minutes_per_run"] is None else [plan["minutes_per_run"]],
        },
    }


def sections(payload: Mapping[str, Any]) -> Iterator[str]:
    """The Markdown file: the effects on what decides, then on the rest, then the answer in words."""
    analysis = payload["analysis"]
    yield "## Effects\n"
    yield f"{preamble(payload)}\n"
    yield markdown(HEADER, [row(found, analysis) for found in analysis["comparisons"]])
    yield "## Other metrics\n"
    yield markdown(("change", "metric", "baseline", "with it", "effect [95 %]"), list(others(analysis)))
    yield "## In words\n"
    yield "\n".join(f"- {found['sentence']}" for found in analysis["comparisons"]) + "\n"


def preamble(payload: Mapping[str, Any]) -> str:
    """What was compared, on what, and how the baseline did."""
    analysis, name = payload["analysis"], payload["analysis"]["primary"]
    base = analysis["arms"][0]
    level = base["levels"][name]
    units = "groups" if analysis["grouped"] else "units"
    epochs = sorted(set(payload["epochs"].values()))
    return (
        f"`{payload['task']}` on {payload['data']['name']}, {analysis['units']:,} test {units}, "
        f"{len(analysis['seeds'])} seeds, {', '.join(map(str, epochs))} epochs. Baseline `{base['name']}`: {name} "
        f"{_arrow(analysis, name)} {level['value']:.4g} [{level['low']:.4g}, {level['high']:.4g}]."
    )


def headline(payload: Mapping[str, Any]) -> str:
    """The baseline's number and every arm's effect, for a cell of a table."""
    analysis, name = payload["analysis"], payload["analysis"]["primary"]
    level = analysis["arms"][0]["levels"][name]
    said = [f"{payload['data']['name']}: {name} {level['value']:.3g} with {analysis['arms'][0]['name']}"]
    for found in analysis["comparisons"]:
        effect = found["effects"][name]
        said.append(f"{found['name']} {_signed(effect['value'])} {_interval(effect['low'], effect['high'])}")
    return "; ".join(said)


def row(found: Mapping[str, Any], analysis: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    effect = found["effects"][analysis["primary"]]
    arm = next(arm for arm in analysis["arms"] if arm["name"] == found["name"])
    ended = arm["endings"]
    lost = {name: ended[name] for name in ("diverged", "failed") if ended[name]}
    return (
        found["name"],
        f"{_signed(effect['value'])} {_interval(effect['low'], effect['high'])}",
        _interval(found["low"], found["high"]),
        f"{found['p_adjusted']:.2g}",
        found["verdict"],
        f"{found['smallest']:.3g}",
        f"x {arm['costs']['seconds']['ratio']:.2f}",
        f"x {arm['costs']['parameters']['ratio']:.2f}",
        ", ".join(f"{count} {name}" for name, count in lost.items()) or "0",
    )


def others(analysis: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Lines of the metrics that decide nothing, as far as the test units say something about them."""
    for found in analysis["comparisons"]:
        for name, effect in found["effects"].items():
            if name == analysis["primary"] or effect["value"] is None:
                continue
            yield (
                found["name"],
                f"{name} {_arrow(analysis, name)}",
                f"{effect['b']:.3g}",
                f"{effect['a']:.3g}",
                f"{_signed(effect['value'])} {_interval(effect['low'], effect['high'])}",
            )


def _arrow(analysis: Mapping[str, Any], name: str) -> str:
    return "↑" if analysis["greater_is_better"][name] else "↓"


def _interval(low: float, high: float) -> str:
    return f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


if __name__ == "__main__":
    sys.exit(main())
