"""Regions of documents: filled from results, and only from them."""

import json
import re
from pathlib import Path

import pytest

import core
from benchmarks import catalogue, readme
from core.norm import NORMS, GroupNorm

ROOT = Path(core.__file__).parents[1]
RESULTS = {
    "provenance": {
        "commit": "0123456789abcdef",
        "threads": 1,
        "machine": {"processor": "A processor"},
        "runs": {
            "commits": ["89abcdef01"],
            "threads": [2],
            "processors": ["Another"],
            "seeds": [0, 1],
            "minutes": [10.0],
        },
    },
    "ranks": {"all": {"average": {"excelformer": 2.25, "hgb": 1.5, "linear": 2.5}, "sets": ["a", "b"]}},
    "versus": {"best boosted": {"win": 1, "tie": 4, "loss": 2}},
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "results" / "tabular").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    return tmp_path


def measure(project):
    folder = project / "results" / "tabular"
    (folder / "quality.json").write_text(json.dumps(RESULTS))
    (folder / "quality.md").write_text("## Average rank\n\n| a |\n| :-- |\n| 1 |\n\n## Cost\n\nmuch\n")
    (folder / "quality-ranks-small.svg").write_text("<svg/>")


def region(source, body="\nold\n"):
    return f"<!-- results: {source} -->{body}<!-- /results -->"


def read(project, text, name="docs/page.md"):
    path = project / name
    path.write_text(text)
    readme.main(["--root", str(project)])
    return path.read_text()


def test_documents_of_this_project_are_current(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().out


def test_what_is_not_measured_says_so(project):
    sources = ["tabular/quality.md#cost", "tabular/quality-ranks-small.svg", "tabular/quality.json#headline"]
    text = read(project, "".join(map(region, sources)))
    assert re.findall(r"-->\n(.*)\n<!--", text) == [readme.ABSENT] * 3
    measure(project)
    assert readme.ABSENT in read(project, region("tabular/quality.md#speed"))


def test_a_section_comes_with_its_conditions(project):
    measure(project)
    text = read(project, "before " + region("tabular/quality.md#average-rank") + " after")
    assert text == (
        "before <!-- results: tabular/quality.md#average-rank -->\n| a |\n| :-- |\n| 1 |\n\n"
        "From `results/tabular/quality.json`: commit 89abcde; Another, 2 threads; seeds 0, 1; at most 10 minutes a fit."
        "\n<!-- /results --> after"
    )


def test_pictures_and_cells(project):
    measure(project)
    text = read(project, region("tabular/quality-ranks-small.svg") + region("tabular/quality.json#headline", "x"))
    assert "\n![quality ranks small](../results/tabular/quality-ranks-small.svg)\n" in text
    cell = "average rank 2.25 of 3 methods on 2 sets; against the best boosted trees 1 won, 4 tied, 2 lost"
    assert f"headline -->{cell}<!-- /results -->" in text


def test_check_changes_nothing_and_finds_what_differs(project, capsys):
    measure(project)
    text = region("tabular/quality.md#cost")
    page = project / "docs" / "page.md"
    page.write_text(text)
    assert readme.main(["--check", "--root", str(project)]) == 1
    assert page.read_text() == text
    assert capsys.readouterr().out == "docs/page.md: is not current\n"
    assert readme.main(["--root", str(project)]) == 0
    assert readme.main(["--check", "--root", str(project)]) == 0


def test_tables_of_blocks_come_from_the_catalogue(project):
    text = read(project, "before\n<!-- blocks: norm -->\n<!-- /blocks -->\nafter")
    lines = text.splitlines()
    assert (lines[:2], lines[-2:]) == (["before", "<!-- blocks: norm -->"], ["<!-- /blocks -->", "after"])
    names = [re.match(r"\| `(\w+)` \(\w+\) \|", line)[1] for line in lines[4:-2]]
    assert names == list(NORMS)
    (row,) = (line for line in lines if line.startswith("| `groupnorm` (GroupNorm) |"))
    assert row.endswith(
        "| `groups` (1), `eps` (1e-05), `affine` (True), `bias` (True) | whole sequences | "
        f"{GroupNorm.cost} | Wu and He, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494) | "
        "tabular with `model.mask=full`; asr; segmentation |"
    )


def test_an_application_that_cannot_be_asked_is_not_left_out(project, monkeypatch):
    monkeypatch.setattr(catalogue.cli, "applications", lambda: {"tabular": None})
    catalogue.table.cache_clear()
    with pytest.raises(ValueError, match="tabular: not installed"):
        read(project, "<!-- blocks: norm --><!-- /blocks -->")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results: tabular/quality.md -->\nlost end",
        "lost begin <!-- /results -->",
        "<!-- results: a.md --> <!-- results: b.md --> <!-- /results -->",
        region("../secret.md"),
        "<!-- blocks: norm --> <!-- /results -->",
        "<!-- blocks: nrom --> <!-- /blocks -->",
    ],
)
def test_broken_markers_are_refused(project, text):
    with pytest.raises(ValueError, match=r"partner|under results|no room"):
        read(project, text)
