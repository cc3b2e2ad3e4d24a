"""A report: one self-contained HTML page of paragraphs, tiles, tables and figures.

The page needs no network and no script, and its content security policy allows neither. Everything handed in is text
and is escaped: a column or class name cannot become markup. Figures are embedded as images (SVG, or PNG where the SVG
would be heavy). It reads in light and dark, on paper and on a narrow screen; the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jinja2

from core.artefact import replace_file
from core.errors import InputError
from core.evaluation.bootstrap import Difference, Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | int | float | Estimate | Difference | None
_HEAVY = 600_000  # characters of SVG from which a PNG is the lighter image
_PNG = b"\x89PNG\r\n\x1a\n"
_DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Tile:
    """One number that matters.

    Attributes:
        label: its name, with the unit.
        value: as it is to be read.
        interval: the interval, in words.
        baseline: what the plain model reaches.
        note: a warning.
    """

    label: str
    value: str
    interval: str = ""
    baseline: str = ""
    note: str = ""

    @classmethod
    def of(
        cls, label: str, estimate: Estimate, baseline: Estimate | None = None, baseline_name: str = "baseline"
    ) -> Tile:
        """The tile of an estimate, beside that of a baseline on the same rows.

        >>> print(Tile.of("AUC", Estimate(0.9123, 0.89, 0.93, 0.95, 0.01, 1000, 1000, 500)).value)
        0.912
        """
        beside = "" if baseline is None else f"{baseline_name}: {number(baseline.value)}"
        if not math.isfinite(estimate.low):
            return cls(label, number(estimate.value), "", beside, estimate.note)
        interval = f"{100 * estimate.confidence:g} % CI {number(estimate.low)} {_DASH} {number(estimate.high)}"
        return cls(label, number(estimate.value), interval, beside, estimate.note)


@dataclass(frozen=True)
class _Text:
    text: str
    kind: str = "text"


@dataclass(frozen=True)
class _Tiles:
    tiles: tuple[Tile, ...]
    kind: str = "tiles"


@dataclass(frozen=True)
class _Column:
    name: str
    number: bool


@dataclass(frozen=True)
class _Table:
    columns: tuple[_Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    kind: str = "table"


@dataclass(frozen=True)
class _Image:
    source: str
    alt: str
    caption: str
    kind: str = "figure"


Mark = Literal["same", "missing", "extra"]


@dataclass(frozen=True)
class Line:
    """A line of words that are compared with others.

    Attributes:
        label: what the line is, such as ``said``.
        words: text and mark of each: ``same`` in both, ``missing`` from the other line, ``extra`` in this one.
    """

    label: str
    words: tuple[tuple[str, Mark], ...]


@dataclass(frozen=True)
class _Comparison:
    lines: tuple[Line, ...]
    caption: str
    kind: str = "comparison"


@dataclass
class Section:
    """A titled part of a report; every method adds below what is there and returns the section."""

    title: str
    parts: list[_Text | _Tiles | _Table | _Comparison | _Image] = field(default_factory=list)

    def text(self, paragraph: str) -> Section:
        """Add a paragraph."""
        self.parts.append(_Text(paragraph))
        return self

    def tiles(self, tiles: Iterable[Tile]) -> Section:
        """Add a row of tiles."""
        self.parts.append(_Tiles(tuple(tiles)))
        return self

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "") -> Section:
        """Add a table; columns of numbers are set to the right.

        Raises:
            InputError: if a row has more or fewer cells than there are columns.
        """
        cells = [tuple(row) for row in rows]
        for index, row in enumerate(cells):
            if len(row) != len(columns):
                raise InputError(
                    f"{len(row)} cells under {len(columns)} columns", where=f"row {index} of {caption or 'a table'}"
                )
        numeric = [bool(cells) and all(not isinstance(row[i], str) for row in cells) for i in range(len(columns))]
        heads = tuple(_Column(str(name), right) for name, right in zip(columns, numeric, strict=True))
        self.parts.append(_Table(heads, tuple(tuple(map(_cell, row)) for row in cells), caption))
        return self

    def comparison(self, lines: Iterable[Line], *, caption: str = "") -> Section:
        """Add lines of words, one below the other, coloured and underlined where they differ.

        >>> said = Line("said", (("one", "same"), ("two", "missing")))
        >>> len(Section("Errors").comparison([said, Line("heard", (("one", "same"),))]).parts)
        1
        """
        self.parts.append(_Comparison(tuple(lines), caption))
        return self

    def figure(self, image: Figure | bytes, *, alt: str, caption: str = "") -> Section:
        """Add a matplotlib figure, or a PNG's bytes.

        Args:
            image: the picture.
            alt: what it shows, for those who cannot see it.
            caption: the line below it.
        """
        self.parts.append(_Image(_data_uri(image), alt, caption))
        return self


class Report:
    """A page under construction.

    Args:
        title: the page's title.
        subtitle: one line below it.
        facts: short facts in the head, such as rows, seed, date.
        footer: the last line, such as the command that made the page.

    >>> report = Report("Churn", "ExcelFormer on the test split")
    >>> _ = report.section("Quality").text("3 < 4").table(["class", "n"], [["<b>", 3]])
    >>> "<td>&lt;b&gt;</td>" in report.html() and "3 &lt; 4" in report.html()
    True
    """

    def __init__(
        self, title: str, subtitle: str = "", *, facts: Mapping[str, Cell] | None = None, footer: str = ""
    ) -> None:
        self.title, self.subtitle, self.footer = title, subtitle, footer
        self.facts = {name: _cell(value) for name, value in (facts or {}).items()}
        self.sections: list[Section] = []

    def section(self, title: str, paragraph: str = "") -> Section:
        """Begin a section."""
        section = Section(title)
        self.sections.append(section.text(paragraph) if paragraph else section)
        return section

    def html(self) -> str:
        """The page."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = environment.get_template("report.html")
        return page.render(
            title=self.title, subtitle=self.subtitle, facts=self.facts, sections=self.sections, footer=self.footer
        )

    def write(self, path: Path | str) -> Path:
        """Write the page, whole or not at all; missing directories are made. Returns the path.

        Raises:
            InputError: it cannot be written there; an older page stays as it is.
        """
        replace_file(path, self.html().encode("utf-8", "backslashreplace"))
        return Path(path)


def number(value: float) -> str:
    """A measured number as it is printed: three decimals from 0.1 to 10, three significant digits elsewhere.

    >>> [number(x) for x in (0.91234, 0.012345, 123456.7, 12.345, float("nan"))]
    ['0.912', '0.0123', '123,457', '12.3', 'undefined']
    """
    if math.isnan(value):
        return "undefined"
    size = abs(value)
    if 1000 <= size < 1e9:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3f}" if 0.1 <= size < 10 or value == 0 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", _MINUS)


def _cell(value: Cell) -> str:
    if value is None:
        return _DASH
    if isinstance(value, Estimate | Difference):
        return str(value).replace("-", _MINUS)
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def _data_uri(image: Figure | bytes) -> str:
    if isinstance(image, bytes):
        if not image.startswith(_PNG):
            raise InputError("the bytes of a figure must be a PNG file")
        return _embed("image/png", image)
    from core.evaluation.plots.style import svg

    drawn = svg(image)
    if len(drawn) < _HEAVY:
        return _embed("image/svg+xml", drawn.encode())
    stream = io.BytesIO()
    image.savefig(stream, format="png", dpi=160, metadata={"Software": None})
    return _embed("image/png", stream.getvalue())


def _embed(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
