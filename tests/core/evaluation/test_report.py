"""The page: escaped, self-contained, the same bytes, whole or absent."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from core.errors import InputError
from core.evaluation import plots
from core.evaluation.bootstrap import Difference, Estimate
from core.evaluation.report import Line, Report, Tile

NAN = float("nan")
EVIL = "\"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7*7 }}'&"


class Parsed(HTMLParser):
    """Tags, attributes and text of a page; the void elements of ours are known."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 0.95, 0.01, 1000, 1000, 100)


def report(name: str) -> Report:
    page = Report(name, name, facts={name: name}, footer=name)
    for _ in range(4):
        section = page.section(name, name)
        section.tiles([Tile(name, name, name, name, name)])
        section.table([name, "n"], [[name, 1], [name, None]], caption=name)
        section.figure(plots.importance([name], np.array([1.0]), label=name), alt=name, caption=name)
    return page


def test_nothing_handed_in_becomes_markup() -> None:
    evil, good = Parsed(report(EVIL).html()), Parsed(report("good").html())
    assert not evil.open
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in good.tags]
    assert [set(a) for _, a in evil.tags] == [set(a) for _, a in good.tags]
    assert EVIL in evil.texts
    assert {a["alt"] for tag, a in evil.tags if tag == "img"} == {EVIL}


def test_the_page_needs_nothing_from_outside() -> None:
    parsed = Parsed(report("good").html())
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/"))
    assert "default-src 'none'" in report("good").html()
    assert not re.search(r"url\(|@import", report("good").html())


def test_links_lead_to_sections() -> None:
    parsed = Parsed(report("good").html())
    ids = {a["id"] for tag, a in parsed.tags if tag == "section"}
    assert {a["href"] for tag, a in parsed.tags if tag == "a"} == {f"#{i}" for i in ids}


def test_equal_content_gives_equal_bytes() -> None:
    assert report("good").html() == report("good").html()


def test_columns_of_numbers_stand_right_and_are_written_alike() -> None:
    page = Report("t")
    difference = Difference(-0.0312, -0.05, -0.012, 0.95, 0.01, 100, 100, 50, 0.002, 0.03, 0.8, 0.83)
    rows = [["a", 12345, 0.5, estimate(0.91234, 0.8912, 0.9345), difference], ["b", None, NAN, None, None]]
    page.section("s").table(["name", "n", "x", "auc", "gap"], rows)
    parsed = Parsed(page.html())
    heads = [a.get("class") for tag, a in parsed.tags if tag == "th"]
    assert heads == [None, "number", "number", "number", "number"]
    minus = "\N{MINUS SIGN}"
    shown = [
        "12,345",
        "0.500",
        "0.912 [0.891, 0.934]",
        f"{minus}0.031 [{minus}0.050, {minus}0.012], p = 0.002",
        "undefined",
    ]
    assert set(shown) <= set(parsed.texts)


def test_a_tile_carries_interval_baseline_and_warning() -> None:
    tile = Tile.of("AUC", estimate(0.9, 0.85, 0.94), estimate(0.8, 0.7, 0.9), "logistic regression")
    assert (tile.value, tile.baseline) == ("0.900", "logistic regression: 0.800")
    assert tile.interval == "95 % CI 0.850 \N{EN DASH} 0.940"
    undefined = Tile.of("AUC", Estimate(NAN, NAN, NAN, 0.95, NAN, 1000, 0, 100))
    assert (undefined.value, undefined.interval) == ("undefined", "")
    assert undefined.note == "undefined in 1000 of 1000 resamples"


def test_a_row_of_another_length_is_named() -> None:
    with pytest.raises(InputError, match="row 1 of scores: 1 cells under 2 columns"):
        Report("t").section("s").table(["a", "b"], [[1, 2], [1]], caption="scores")


def source(page: Report) -> str:
    return next(a["src"] or "" for tag, a in Parsed(page.html()).tags if tag == "img")


def test_light_figures_are_svg_heavy_ones_and_bytes_are_png(monkeypatch: pytest.MonkeyPatch) -> None:
    light, heavy, given = Report("t"), Report("t"), Report("t")
    light.section("s").figure(plots.importance(["a"], np.array([1.0])), alt="bars")
    figure = Figure()
    figure.subplots().plot(*np.random.default_rng(0).random((2, 3_000)))
    monkeypatch.setattr("core.evaluation.report._HEAVY", 50_000)
    heavy.section("s").figure(figure, alt="noise")
    png = base64.b64decode(source(heavy).removeprefix("data:image/png;base64,"))
    given.section("s").figure(png, alt="noise")
    assert source(light).startswith("data:image/svg+xml;base64,")
    assert source(given) == source(heavy)
    with pytest.raises(InputError, match="PNG"):
        given.section("s").figure(b"GIF89a", alt="")


def test_writing_makes_directories_and_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "report" / "index.html"
    page = Report("first é 年 \ud800")
    assert page.write(path) == path
    before = path.read_bytes()
    assert "first é 年" in before.decode("utf-8")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(InputError, match="disk full"):
        Report("second").write(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_words_that_differ_are_marked_and_escaped() -> None:
    page = Report("t")
    said = Line("said", (("<one>", "same"), ("two", "missing")))
    page.section("s").comparison([said, Line("heard", (("three", "extra"),)), Line("empty", ())], caption="a.wav")
    html = page.html()
    assert '<dd>&lt;one&gt; <span class="missing">two</span> </dd>' in html
    assert '<dd><span class="extra">three</span> </dd>' in html
    assert "<dt>empty</dt><dd>\N{EN DASH}</dd>" in html
