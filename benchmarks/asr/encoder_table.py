"""What :mod:`benchmarks.asr.encoder` measured, as Markdown, as one line, and as facts for a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from benchmarks.common.table import markdown

OURS = "ours"
#: How the results call the contenders in tables.
NAMES = {"ours": "Squeezeformer", "torchaudio": "torchaudio Conformer", "speechbrain": "SpeechBrain Conformer"}
PASSES = {"infer": "Inference", "step": "Training step"}
MEASURES = ("parameters", "width", "layers", "heads", "hidden", "kernel")


def document(payload: Mapping[str, Any]) -> str:
    """The Markdown file: the contenders, then one table for each peer and pass."""
    parts = ["## Contenders\n", contender_table(payload["contenders"])]
    for peer in payload["contenders"]:
        for mode, title in PASSES.items():
            rows = [row for row in payload["rows"] if row["pass"] == mode]
            if peer != OURS and rows:
                parts += [f"## {title} against {NAMES[peer]}\n", peer_table(rows, peer)]
    parts += ["## Summary\n", *(f"- {NAMES[peer]}, {line}" for peer, line in summary(payload["rows"]))]
    return "\n".join(parts) + "\n"


def contender_table(contenders: Mapping[str, Mapping[str, Any]]) -> str:
    """Parameters and measures."""
    rows = [(NAMES[name], *(f"{facts[key]:,}" for key in MEASURES)) for name, facts in contenders.items()]
    header = ("", "parameters", "width", "layers", "heads", "hidden width of a feed-forward", "taps")
    note = (
        "The same front end and head, counted in the parameters; the peers' hidden width makes up for smaller blocks."
    )
    return markdown(header, rows) + f"\n{note}\n"


def peer_table(rows: Sequence[Mapping[str, Any]], peer: str) -> str:
    """One row a load and precision."""
    lines = []
    for row in rows:
        found, seconds = row["peers"][peer], row["seconds_per_pass"]
        lines.append(
            (
                *(f"{row['seconds']:g} s x {row['batch']}", row["precision"]),
                *(f"{1000 * seconds[name]:.0f}" for name in (OURS, peer)),
                f"{found['time']['value']:.2f} [{found['time']['low']:.2f}, {found['time']['high']:.2f}]",
                f"{found['multiply_adds']:.2f}",
                verdict(found),
                *(_mib(row["memory_mib"][name]) for name in (OURS, peer)),
                "n/a" if found["memory"] is None else f"{found['memory']:.2f}",
            )
        )
    header = (
        *("audio x batch", "precision", "ours, ms", "peer, ms", "time ratio [interval]", "multiply-adds ratio"),
        *("time ratio at least that", "ours, MiB", "peer, MiB", "memory ratio"),
    )
    coverage = min(row["peers"][peer]["time"]["coverage"] for row in rows)
    note = "Ratios are peer / ours. Intervals are of the median over rounds and cover it with probability "
    return markdown(header, lines) + f"\n{note}{coverage:.2f} or more; (yes) and (no): the interval leaves it open.\n"


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the time ratio reaches the ratio of multiply-adds; in brackets where its interval leaves that open.

    >>> verdict({"at_least": True, "clear": False})
    '(yes)'
    """
    word = "yes" if found["at_least"] else "no"
    return word if found["clear"] else f"({word})"


def _mib(value: float | None) -> str:
    return "killed" if value is None else f"{value:.0f}"


def facts(rows: Sequence[Mapping[str, Any]], peer: str) -> dict[str, Any]:
    """What a document may say of a peer: typical ratios by pass and precision, and how often the target was met."""
    result = {}
    for mode in PASSES:
        for precision in ("fp32", "bf16"):
            chosen = [row["peers"][peer] for row in rows if (row["pass"], row["precision"]) == (mode, precision)]
            if not chosen:
                continue
            memories = [found["memory"] for found in chosen if found["memory"]]
            result[f"{mode} {precision}"] = {
                "points": len(chosen),
                "met": sum(found["at_least"] for found in chosen),
                "faster": sum(found["time"]["low"] > 1 for found in chosen),
                "slower": sum(found["time"]["high"] < 1 for found in chosen),
                "time": geometric_mean(found["time"]["value"] for found in chosen),
                "multiply_adds": geometric_mean(found["multiply_adds"] for found in chosen),
                "memory": geometric_mean(memories) if memories else None,
            }
    return result


def summary(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every peer with a line of its :func:`facts`."""
    for peer in rows[0]["peers"] if rows else ():
        for name, found in facts(rows, peer).items():
            memory = "" if found["memory"] is None else f", memory {found['memory']:.2f}"
            yield (
                peer,
                f"{name}: time ratio {found['time']:.2f} for {found['multiply_adds']:.2f} times the multiply-adds"
                f"{memory} (geometric means over {found['points']} points); ours clearly faster at {found['faster']}, "
                f"clearly slower at {found['slower']}; time ratio at least that of the multiply-adds at {found['met']}",
            )


def headline(results: Mapping[str, Any]) -> str:
    """One phrase for a cell of a table: inference in float32 against every peer."""
    phrases = []
    for peer in results["contenders"]:
        found = None if peer == OURS else facts(results["rows"], peer).get("infer fp32")
        if found:
            phrases.append(f"{found['time']:.2f} times as fast as the {NAMES[peer]}")
    points = len({(row["seconds"], row["batch"]) for row in results["rows"]})
    return f"inference {' and '.join(phrases)} at equal parameters (geometric mean over {points} loads)"


def told(row: Mapping[str, Any]) -> str:
    """A row as one line."""
    peers = "; ".join(
        f"{name} time {found['time']['value']:.2f} [{found['time']['low']:.2f}, {found['time']['high']:.2f}], "
        f"multiply-adds {found['multiply_adds']:.2f}, memory {found['memory'] or float('nan'):.2f}"
        for name, found in row["peers"].items()
    )
    load = f"{row['seconds']:g} s x {row['batch']} {row['precision']} {row['pass']}"
    return f"{load}: ours {1000 * row['seconds_per_pass'][OURS]:.0f} ms; {peers} ({row['rounds']} rounds)"
