"""Numbers in documents, written from the files under ``results/``, and tables of blocks, written from the catalogue.

    python -m benchmarks.readme            fill the documents
    python -m benchmarks.readme --check    change nothing; status 1 when a document differs

A document marks what is filled in:

    <!-- results: tabular/quality.md#average-rank -->
    ...
    <!-- /results -->

The source is a file under ``results/`` with an optional part:

- ``X.md#some-heading``: what stands under ``## Some heading`` of that file; without a part, the whole file. A line with
  the conditions of the measurement, from ``X.json``, follows.
- ``X.svg``: the picture.
- ``X.json#headline``: one phrase for a cell of a table (:data:`PHRASES`).

Where the file or the part does not exist, the region reads "not measured yet". A region that begins on the line of its
marker stays on that line.

Tables of blocks stand between ``<!-- blocks: ROOM -->`` and ``<!-- /blocks -->``, with a room of ``core``: attention,
convolution, norm, feedforward, position.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import catalogue, comparisons
from benchmarks.asr import accuracy_table, encoder_table
from benchmarks.common.record import ROOT
from benchmarks.common.table import write_text
from benchmarks.segmentation.tables import encoder_headline

REGION = re.compile(
    r"(?P<begin><!-- (?P<kind>results|blocks): (?P<source>\S+) -->)(?P<body>.*?)(?P<end><!-- /(?P=kind) -->)", re.DOTALL
)
MARKER = re.compile(r"<!-- /?(results|blocks)\b[^\n]*?-->")
ABSENT = "not measured yet"
DOCUMENTS = ("README.md", "apps/**/README.md", "docs/**/*.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Fill or check every document; the status is 1 when ``--check`` found one that differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    stale = [path for path in documents(options.root) if not _is_current(path, options.root, write=not options.check)]
    for path in stale:
        print(f"{path.relative_to(options.root)}: {'is not current' if options.check else 'filled'}")
    return 1 if options.check and stale else 0


def documents(root: Path) -> Iterator[Path]:
    """The documents that may hold numbers."""
    for pattern in DOCUMENTS:
        yield from sorted(root.glob(pattern))


def _is_current(path: Path, root: Path, *, write: bool) -> bool:
    text = path.read_text(encoding="utf-8")
    wanted = filled(text, path, root)
    if write and text != wanted:
        write_text(path, wanted)
    return text == wanted


def filled(text: str, path: Path, root: Path) -> str:
    """``text`` of the document ``path`` with every region as its source says.

    Raises:
        ValueError: a marker without its partner, a source that leads out of the results, or no such room.
    """

    def replace(match: re.Match[str]) -> str:
        source = match["source"]
        body = catalogue.table(source) if match["kind"] == "blocks" else render(source, path, root)
        block = match["body"].startswith("\n")
        return match["begin"] + (f"\n{body}\n" if block else body.replace("\n", " ")) + match["end"]

    regions = list(REGION.finditer(text))
    if len(MARKER.findall(text)) != 2 * len(regions) or any(MARKER.search(match["body"]) for match in regions):
        raise ValueError(f"{path}: a marker has no partner")
    return REGION.sub(replace, text)


def render(source: str, document: Path, root: Path) -> str:
    """What stands in a region of ``document``."""
    name, _, part = source.partition("#")
    results = root / "results"
    file = results / name
    if not file.resolve().is_relative_to(results.resolve()):
        raise ValueError(f"{document}: {source} is not under results/")
    if not file.is_file():
        return ABSENT
    if file.suffix == ".svg":
        return f"![{file.stem.replace('-', ' ')}]({Path(os.path.relpath(file, document.parent)).as_posix()})"
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return PHRASES[source](json.loads(text))
    body = section(text, part) if part else text.strip()
    if body is None:
        return ABSENT
    return f"{body}\n\n{conditions(file.with_suffix('.json'), root)}"


def section(text: str, slug: str) -> str | None:
    """What stands under a heading of the second level, named as in a link to it; None without such a heading.

    >>> section("## Average rank\\n\\none\\n\\n## Cost\\n\\ntwo\\n", "average-rank")
    'one'
    """
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") == slug:
            return body.strip()
    return None


def conditions(file: Path, root: Path) -> str:
    """One line that says what a number was measured with, from the provenance in its JSON file."""
    provenance: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))["provenance"]
    runs = provenance.get("runs", {})
    commits = runs.get("commits") or [provenance["commit"]]
    threads = runs.get("threads") or [provenance["threads"]]
    processors = runs.get("processors") or [provenance["machine"]["processor"]]
    minutes = _listed(f"{number:g}" for number in runs.get("minutes", ()))
    facts = [
        f"commit {_listed(str(commit)[:7] for commit in commits)}",
        f"{_listed(processors)}, {_listed(threads)} threads",
        *([f"seeds {_listed(runs['seeds'])}"] if "seeds" in runs else []),
        *([f"at most {minutes} minutes a fit"] if minutes else []),
    ]
    return f"From `{file.relative_to(root).as_posix()}`: {'; '.join(facts)}."


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def quality_headline(results: Mapping[str, Any]) -> str:
    """Rank among the methods, and the count against the best boosted method."""
    ranking, versus = results["ranks"]["all"], results["versus"].get("best boosted")
    if ranking is None or versus is None:
        return ABSENT
    average = ranking["average"]
    return (
        f"average rank {average['excelformer']:.2f} of {len(average)} methods on {len(ranking['sets'])} sets; against "
        f"the best boosted trees {versus['win']} won, {versus['tie']} tied, {versus['loss']} lost"
    )


PHRASES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "asr/accuracy.json#headline": accuracy_table.headline,
    "asr/encoder.json#headline": encoder_table.headline,
    "comparisons/segmentation-seg_camvid.json#headline": comparisons.headline,
    "segmentation/encoder.json#headline": encoder_headline,
    "tabular/quality.json#headline": quality_headline,
}
"""Phrases by their source."""


if __name__ == "__main__":
    sys.exit(main())
