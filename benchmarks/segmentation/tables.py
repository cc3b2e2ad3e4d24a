"""What the programs for segmentation measured, as Markdown, as one line, and as a phrase for a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np

from benchmarks.common.table import markdown

Row = Mapping[str, Any]

TARGET = 1.2
PASSES = {"infer": "Inference", "step": "Training step"}
INTERVALS = "Intervals are of the median over rounds and cover it with probability"


def interval(found: Mapping[str, float]) -> str:
    """A ratio with its interval.

    >>> interval({"value": 1.234, "low": 1.2, "high": 1.3})
    '1.23 [1.20, 1.30]'
    """
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _mib(value: float | None) -> str:
    return "killed" if value is None else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


# --------------------------------------------------------------------------------------------------------- encoder


def encoder_document(payload: Mapping[str, Any]) -> str:
    """A table for each pass, and a summary."""
    parts = []
    for mode, title in PASSES.items():
        rows = [row for row in payload["rows"] if row["pass"] == mode]
        if rows:
            parts += [f"## {title}\n", _encoder_table(rows)]
    parts += ["## Summary\n", *(f"- {line}" for line in encoder_summary(payload["rows"]))]
    return "\n".join(parts) + "\n"


def _encoder_table(rows: Sequence[Row]) -> str:
    lines = [
        (
            f"{row['size'].upper()}, {_load(row)}",
            row["precision"],
            *(f"{1000 * row['seconds_per_pass'][side]:.0f}" for side in ("ours", "mmseg")),
            interval(row["time"]),
            *(_mib(row["memory_mib"][side]) for side in ("ours", "mmseg")),
            _times(row["memory"]),
            f"{row['multiply_adds'] / 1e9:.1f}",
            f"{row['difference']:.0e}",
        )
        for row in rows
    ]
    header = (
        *("encoder, image x batch", "precision", "ours, ms", "mmseg, ms", "time ratio [interval]"),
        *("ours, MiB", "mmseg, MiB", "memory ratio", "forward multiply-adds, G", "results apart"),
    )
    note = f"Ratios are mmsegmentation / ours. {INTERVALS} {min(row['time']['coverage'] for row in rows):.2f} or more."
    return markdown(header, lines) + f"\n{note}\n"


def _load(row: Row) -> str:
    return f"{row['rows']} x {row['columns']} x {row['batch']}"


def encoder_summary(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each pass and precision of each encoder."""
    for size in dict.fromkeys(row["size"] for row in rows):
        for mode, title in PASSES.items():
            for precision in ("fp32", "bf16"):
                asked = (size, mode, precision)
                some = [row for row in rows if (row["size"], row["pass"], row["precision"]) == asked]
                if some:
                    time = geometric_mean(row["time"]["value"] for row in some)
                    met = "reached" if time >= TARGET else "missed"
                    clear = sum(row["time"]["low"] >= TARGET for row in some)
                    yield (
                        f"{size.upper()}, {title.lower()}, {precision}: time ratio {time:.2f} (geometric mean over "
                        f"{len(some)} loads), {TARGET:g} {met}; at {clear} with the whole interval"
                    )


def encoder_told(row: Row) -> str:
    """A row as one line."""
    milliseconds = 1000 * row["seconds_per_pass"]["ours"]
    return (
        f"{row['size']} {_load(row)} {row['pass']} {row['precision']}: ours {milliseconds:.0f} ms, time "
        f"{interval(row['time'])}, memory {_times(row['memory'])}; {_measured(row)}"
    )


def _measured(row: Row) -> str:
    return f"{row['difference']:.0e} apart ({row['rounds']} rounds)"


def encoder_headline(payload: Mapping[str, Any]) -> str:
    """One phrase for a cell of a table."""
    phrases = []
    for mode, title in (("infer", "inference"), ("step", "training steps")):
        for precision in ("fp32", "bf16"):
            some = [row for row in payload["rows"] if (row["pass"], row["precision"]) == (mode, precision)]
            if some:
                phrases.append(f"{title} {geometric_mean(row['time']['value'] for row in some):.2f} ({precision})")
    return f"time of mmsegmentation's encoder in ours, with the same weights: {', '.join(phrases)} (geometric means)"


# ------------------------------------------------------------------------------------------------------------ head


def head_document(payload: Mapping[str, Any]) -> str:
    """Heads, then the parts of ours, precisions side by side."""
    rows = {row["precision"]: row for row in payload["rows"]}
    first = next(iter(rows.values()))
    heads, parts = [], []
    for name, facts in first["heads"].items():
        cells = [f"{facts['parameters'] / 1e6:.2f}", f"{facts['multiply_adds'] / 1e9:.1f}"]
        for row in rows.values():
            found = row["heads"][name]
            cells += [f"{1000 * found['seconds']:.0f}", "" if found["time"] is None else interval(found["time"])]
        heads.append((name, *cells))
    work = sum(facts["multiply_adds"] for facts in first["parts"].values())
    for name, facts in first["parts"].items():
        cells = [f"{facts['multiply_adds'] / 1e9:.2f}", f"{facts['multiply_adds'] / work:.1%}"]
        for row in rows.values():
            total = sum(found["seconds"] for found in row["parts"].values())
            seconds = row["parts"][name]["seconds"]
            cells += [f"{1000 * seconds:.1f}", f"{seconds / total:.1%}"]
        parts.append((name, *cells))
    per = [f"{name}, {what}" for name in rows for what in ("ms", "time ratio [interval]")]
    shares = [f"{name}, {what}" for name in rows for what in ("ms", "of the time")]
    note = "Ratios are peer / ours; the peer of the first is the second, of the third the fourth; the last computes "
    return (
        "## Heads\n\n"
        + markdown(("head", "parameters, M", "multiply-adds, G", *per), heads)
        + f"\n{note}something else, and is set against the first.\n\n## Where the time goes\n\n"
        + markdown(("part", "multiply-adds, G", "of the multiply-adds", *shares), parts)
    )


def head_told(row: Row) -> str:
    """A row as one line."""
    heads = ", ".join(f"{name} {1000 * found['seconds']:.0f} ms" for name, found in row["heads"].items())
    costly = sorted(row["parts"], key=lambda name: -row["parts"][name]["seconds"])[:3]
    parts = ", ".join(f"{name} {1000 * row['parts'][name]['seconds']:.0f} ms" for name in costly)
    return f"{row['precision']}: {heads}; most of it: {parts} ({row['rounds']} rounds)"


# ------------------------------------------------------------------------------------------------------ adaptation


def adaptation_document(payload: Mapping[str, Any]) -> str:
    """One row a network, precision and distance."""
    lines = []
    for row in payload["rows"]:
        seconds, grown = row["seconds_per_step"], row["memory_mib"]
        lines.append(
            (
                f"{row['size'].upper()}, {row['side']} x {row['side']}",
                row["precision"],
                "yes" if row["distance"] else "no",
                *(f"{seconds[name]:.2f}" for name in ("ours", "released")),
                *(interval(row["time"][name]) for name in ("released", "graph")),
                *(_mib(grown[name]) for name in ("ours", "released", "graph")),
                *(_times(row["memory"][name]) for name in ("released", "graph")),
                f"{row['difference']:.0e}",
            )
        )
    header = (
        *(
            "encoder, crop",
            "precision",
            "feature distance",
            "ours, s",
            "released, s",
            "released: time ratio [interval]",
        ),
        *("with a teacher's graph: time ratio [interval]", "ours, MiB", "released, MiB", "with a teacher's graph, MiB"),
        *("released: memory ratio", "with a teacher's graph: memory ratio", "gradients apart"),
    )
    coverage = min((row["time"]["released"]["coverage"] for row in payload["rows"]), default=0.0)
    note = f"Two images of each domain; ratios are theirs / ours. {INTERVALS} {coverage:.2f} or more."
    return f"## A step of adaptation\n\n{markdown(header, lines)}\n{note}\n"


def adaptation_told(row: Row) -> str:
    """A row as one line."""
    peers = "; ".join(
        f"{name} time {interval(row['time'][name])}, memory {_times(row['memory'][name])}" for name in row["time"]
    )
    what = "with" if row["distance"] else "without"
    ours = f"ours {row['seconds_per_step']['ours']:.2f} s, {_mib(row['memory_mib']['ours'])} MiB"
    return f"{row['size']} {row['side']} {row['precision']} {what} distance: {ours}; {peers}; {_measured(row)}"


# --------------------------------------------------------------------------------------------------------- bounded


def bounded_document(payload: Mapping[str, Any]) -> str:
    """One row an image size, and the power of the pixels with which each contender grows."""
    rows = payload["rows"]
    names = list(rows[0]["memory_mib"]) if rows else []
    lines = [(f"{row['rows']} x {row['columns']}", *(_mib(row["memory_mib"][name]) for name in names)) for row in rows]
    powers = [growth(rows, name) for name in names]
    lines.append(("exponent of the growth with pixels", *("n/a" if p is None else f"{p:.2f}" for p in powers)))
    header = ("image", *(f"{name}, MiB" for name in names))
    return f"## Peak memory of {payload['size'].upper()}\n\n{markdown(header, lines)}"


def growth(rows: Sequence[Row], name: str) -> float | None:
    """Slope of log memory over log pixels by least squares; None with fewer than two figures.

    >>> rows = [{"rows": n, "columns": n, "memory_mib": {"a": float(n)}} for n in (256, 512, 1024)]
    >>> round(growth(rows, "a"), 6)
    0.5
    """
    known = [(row["rows"] * row["columns"], row["memory_mib"][name]) for row in rows if row["memory_mib"][name]]
    if len(known) < 2:
        return None
    pixels, mib = np.log(np.array(known, dtype=np.float64)).T
    return float(np.polyfit(pixels, mib, 1)[0])


def bounded_told(row: Row) -> str:
    """A row as one line."""
    grown = ", ".join(f"{name} {_mib(value)}" for name, value in row["memory_mib"].items())
    return f"{row['rows']} x {row['columns']}, MiB: {grown}"
