"""The results of :mod:`benchmarks.asr.accuracy` as one JSON and one Markdown file.

    python -m benchmarks.asr.accuracy_table --runs results/asr/accuracy/runs --out results/asr/accuracy.json

Nothing is trained or transcribed, and no corpus is needed: runs store the errors of every test utterance. A rate is
the errors over the symbols of all references, in percent, averaged over seeds; intervals resample whole speakers where
there are at least ten, else utterances, and are paired for differences. A row whose code has changed carries a dagger.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.asr.accuracy import system_source
from benchmarks.asr.systems import OFF_THE_SHELF, OURS, SYSTEMS
from benchmarks.common.record import provenance, write_json
from benchmarks.common.table import markdown, write_text
from core.evaluation.bootstrap import Difference, Estimate, bootstrap, paired
from core.evaluation.metrics import Metric

Run = Mapping[str, Any]

FEWEST_SPEAKERS = 10
UNITS = {"wer": "words", "cer": "characters"}
STALE = "†"


def main(argv: Sequence[str] | None = None) -> int:
    """Score the runs and write both files; status 2 when there is no finished run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asr.accuracy_table", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("results/asr/accuracy/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/asr/accuracy.json"))
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args(argv)
    runs = [json.loads(path.read_text()) for path in sorted(options.runs.glob("*.json"))]
    finished = [run for run in runs if run["status"] == "finished" and run["key"]["system"] in SYSTEMS]
    if not finished:
        print(f"{options.runs}: no finished runs; run benchmarks.asr.accuracy first", file=sys.stderr)
        return 2
    payload = {"provenance": origin(finished), "corpora": summarise(finished, options.resamples)}
    write_json(options.out, payload)
    write_text(options.out.with_suffix(".md"), document(payload["corpora"]))
    return 0


def origin(runs: Sequence[Run]) -> dict[str, Any]:
    """What produced the table, and the conditions of the runs."""
    return {
        **provenance(threads=1, packages=("scipy",)),
        "runs": {
            "count": len(runs),
            **{name: sorted({run["key"][name] for run in runs}) for name in ("threads", "minutes")},
            "seeds": sorted({run["key"]["seed"] for run in runs}),
            "presets": sorted({run["key"]["preset"] for run in runs}),
            "limits": sorted({str(run["key"]["limit"]) for run in runs}),
            "commits": sorted({str(run["provenance"]["commit"]) for run in runs}),
            "processors": sorted({run["provenance"]["machine"]["processor"] for run in runs}),
        },
    }


def summarise(runs: Sequence[Run], resamples: int) -> dict[str, Any]:
    """Every corpus: rates of each system, and ours against each other one."""
    result = {}
    for corpus in sorted({run["key"]["corpus"] for run in runs}):
        of = {
            name: [run for run in runs if run["key"]["corpus"] == corpus and run["key"]["system"] == name]
            for name in SYSTEMS
        }
        of = {name: found for name, found in of.items() if found}
        _check_conditions(corpus, [run for found in of.values() for run in found])
        first = next(iter(of.values()))[0]
        result[corpus] = {
            "synthetic": first["synthetic"],
            "utterances": len(first["utterances"]),
            "audio_seconds": first["predict"]["audio_seconds"],
            "systems": {name: describe(name, found, resamples) for name, found in of.items()},
            "differences": {
                name: {rate: plain(difference(of[OURS], found, rate, resamples)) for rate in UNITS}
                for name, found in of.items()
                if OURS in of and name != OURS
            },
        }
    return result


def _check_conditions(corpus: str, runs: Sequence[Run]) -> None:
    conditions = {tuple(run["key"][name] for name in ("minutes", "preset", "threads", "limit")) for run in runs}
    if len(conditions) > 1:
        raise ValueError(f"{corpus}: the runs were not made under the same conditions: {sorted(conditions, key=str)}")


def describe(name: str, runs: Sequence[Run], resamples: int) -> dict[str, Any]:
    """Rates and cost of one system on one corpus."""
    fits = [run["fit"] for run in runs if run["fit"]]
    return {
        "seeds": [run["key"]["seed"] for run in runs],
        "stale": any(run["source"] != system_source(name) for run in runs),
        "parameters": runs[0]["parameters"],
        **{rate: plain(estimate(runs, rate, resamples)) for rate in UNITS},
        "fit_seconds": fmean(fit["seconds"] for fit in fits) if fits else None,
        "epochs": [fit["epochs"] for fit in fits],
        "real_time_factor": fmean(run["predict"]["seconds"] / run["predict"]["audio_seconds"] for run in runs),
        "peak_mib": fmean(run["memory"]["peak_mib"] for run in runs),
    }


def estimate(runs: Sequence[Run], rate: str, resamples: int) -> Estimate:
    """The rate of a system, mean over its seeds."""
    symbols, errors = counts(runs, UNITS[rate])
    return bootstrap(RATE, symbols, errors, groups=speakers(runs[0]), n=resamples)


def difference(ours: Sequence[Run], theirs: Sequence[Run], rate: str, resamples: int) -> Difference:
    """Ours minus theirs on the same utterances: below zero, ours is better."""
    symbols, one = counts(ours, UNITS[rate])
    other_symbols, other = counts(theirs, UNITS[rate])
    if _keys(ours[0]) != _keys(theirs[0]) or not np.array_equal(symbols, other_symbols):
        raise ValueError("two systems were not tested on the same utterances: run both again")
    return paired(RATE, symbols, one, other, groups=speakers(ours[0]), n=resamples)


def counts(runs: Sequence[Run], unit: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Symbols of each reference ``(N,)``, and errors, mean over seeds ``(N,)``."""
    if any(_keys(run) != _keys(runs[0]) for run in runs):
        raise ValueError("two seeds were not tested on the same utterances: run both again")
    symbols = np.array([utterance[unit]["of"] for utterance in runs[0]["utterances"]], np.float64)
    errors = [[utterance[unit]["errors"] for utterance in run["utterances"]] for run in runs]
    return symbols, np.mean(np.array(errors, np.float64), axis=0)


def _keys(run: Run) -> list[str]:
    return [utterance["key"] for utterance in run["utterances"]]


def speakers(run: Run) -> NDArray[Any] | None:
    """Who speaks each utterance, where all are known and there are enough of them to be resampled."""
    names = [utterance["speaker"] for utterance in run["utterances"]]
    return np.array(names) if None not in names and len(set(names)) >= FEWEST_SPEAKERS else None


def _rate(symbols: NDArray[Any], errors: NDArray[Any]) -> float:
    return 100 * float(errors.sum()) / float(symbols.sum())


def _weighted(symbols: NDArray[Any], errors: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    rates: NDArray[Any] = 100 * (weights @ errors) / (weights @ symbols)
    return rates


RATE = Metric("rate", _rate, greater_is_better=False, needs="value", weighted=_weighted)


def plain(record: Estimate | Difference) -> dict[str, Any]:
    """As JSON-able data, what is not finite as None; with the note a reader needs."""
    numbers = asdict(record).items()
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in numbers}
    return {**finite, "note": record.note}


def document(corpora: Mapping[str, Any]) -> str:
    """The Markdown file: a table of rates and one of differences for each corpus."""
    parts = []
    for name, found in corpora.items():
        kind = "synthetic speech, " if found["synthetic"] else ""
        parts += [f"## {name}\n", f"{kind}{found['utterances']} test utterances, {found['audio_seconds']:.0f} s.\n"]
        parts += [rate_table(found["systems"]), difference_table(found["differences"])]
    return "\n".join(parts)


def rate_table(systems: Mapping[str, Any]) -> str:
    """Error rates with intervals, and what they cost."""
    rows = []
    for name, found in sorted(systems.items(), key=lambda item: item[1]["cer"]["value"]):
        rows.append(
            (
                name + (STALE if found["stale"] else ""),
                *(_interval(found[rate]) for rate in UNITS),
                "n/a" if found["parameters"] is None else f"{found['parameters']:,}",
                "n/a" if found["fit_seconds"] is None else f"{found['fit_seconds'] / 60:.1f}",
                ", ".join(map(str, found["epochs"])) or "n/a",
                f"{found['real_time_factor']:.4f}",
                f"{found['peak_mib']:.0f}",
            )
        )
    header = ("system", "WER, % [95 %]", "CER, % [95 %]", "parameters", "minutes trained", "epochs")
    note = "Greedy decoding without a language model; real-time factor: seconds a second of audio, features included."
    if OFF_THE_SHELF in systems:
        note += f" {OFF_THE_SHELF} comes trained: it has heard none of this corpus, and has a language model."
    return markdown((*header, "real-time factor", "peak MiB"), rows) + f"\n{note}\n"


def difference_table(differences: Mapping[str, Any]) -> str:
    """Ours minus each other system."""
    rows = [
        (
            name,
            *(f"{_interval(found[rate], '+')}, p = {_number(found[rate]['p'], '.2g')}" for rate in UNITS),
            *(_number(found[rate]["smallest_effect"], ".1f") for rate in UNITS),
        )
        for name, found in differences.items()
    ]
    header = (f"{OURS} minus", "WER, points [95 %]", "CER, points [95 %]", "smallest visible, WER", "CER")
    return markdown(header, rows) if rows else ""


def headline(results: Mapping[str, Any]) -> str:
    """One phrase for a cell of a table: word error rates of all systems, corpus by corpus."""
    phrases = []
    for name, found in results["corpora"].items():
        rates = ", ".join(f"{system} {facts['wer']['value']:.1f}" for system, facts in found["systems"].items())
        phrases.append(f"{name}: WER % {rates}")
    return "; ".join(phrases)


def _interval(found: Mapping[str, Any], sign: str = "") -> str:
    low, high = (_number(found[end], f"{sign}.1f") for end in ("low", "high"))
    return f"{_number(found['value'], f'{sign}.1f')} [{low}, {high}]"


def _number(value: float | None, style: str) -> str:
    return "n/a" if value is None else format(value, style)


if __name__ == "__main__":
    sys.exit(main())
