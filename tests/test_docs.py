"""Documents do what they say: every command runs, every example runs, every link leads somewhere.

Blocks of one document run in order, in a folder that holds two tables and a few recordings, with every preset made
tiny. A block of bash runs line by line in this process; the few commands that set up a checkout are known and left out.
"""

import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import pytest

import core
from apps import cli
from apps.asr import presets as asr_presets
from apps.asr.config import AsrConfig
from apps.asr.config import ModelConfig as AsrModelConfig
from apps.tabular.prediction import presets
from apps.tabular.prediction.config import ModelConfig, TabularConfig
from apps.vision.segmentation import presets as segmentation_presets
from core.training import FitSettings

ROOT = Path(core.__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "apps").rglob("*.md"), ROOT / "benchmarks/README.md"]
)
BLOCK = re.compile(r"^```(?P<kind>bash|python)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = ("make", "pip", "git", "cd")
"""Commands that make or use a checkout: CI runs them, not a test."""


def blocks(page):
    """Kind and body of what a page says can be run; doctests are run by pytest's own collection."""
    found = [(match["kind"], match["body"]) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return [(kind, body) for kind, body in found if kind == "bash" or ">>>" not in body]


def tiny():
    return TabularConfig(model=ModelConfig(width=8, heads=2, layers=1), fit=FitSettings(max_epochs=1))


def tiny_asr():
    model = AsrModelConfig(width=16, layers=3, heads=2, reduce=1, kernel=3)
    return AsrConfig(model=model, fit=FitSettings(max_epochs=1))


def tiny_segmentation():
    preset = segmentation_presets.tiny()
    return dataclasses.replace(preset, epoch_images=16, fit=FitSettings(max_epochs=1))


def write_recordings(folder):
    """A corpus of noise, and ``new.wav`` beside it."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    (folder / "recordings").mkdir()
    lines = ["path,text,split"]
    for index, split in enumerate(["train"] * 6 + ["valid"] * 2 + ["test"] * 2):
        soundfile.write(folder / f"recordings/{index}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
        lines.append(f"{index}.wav,one two {index % 3 * 'a'}b,{split}")
    (folder / "recordings" / "manifest.csv").write_text("\n".join(lines) + "\n")
    soundfile.write(folder / "new.wav", 0.1 * rng.standard_normal(20_000), 16_000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with ``table.csv`` (two classes), ``new.csv``, rows of it without the target, and recordings."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer(as_frame=True).frame.iloc[:300]
    table = table.assign(target=table["target"].map({0: "malignant", 1: "benign"}))
    table.to_csv(tmp_path / "table.csv", index=False)
    table.drop(columns="target").head(5).to_csv(tmp_path / "new.csv", index=False)
    monkeypatch.chdir(tmp_path)
    for name in presets.PRESETS:
        monkeypatch.setitem(presets.PRESETS, name, tiny)
    write_recordings(tmp_path)
    for name in asr_presets.PRESETS:
        monkeypatch.setitem(asr_presets.PRESETS, name, tiny_asr)
    quick = tiny_segmentation()
    for name in segmentation_presets.PRESETS:
        monkeypatch.setitem(segmentation_presets.PRESETS, name, lambda: quick)
    return tmp_path


def status_of(words):
    """Run one command."""
    if words[0] == "manyformer":
        return cli.main(words[1:])
    assert words[:2] == ["python", "-m"], f"a test cannot run {words[0]!r}; add it to SETUP if it sets up a checkout"
    return importlib.import_module(words[2]).main(words[3:])


def commands(body):
    lines = body.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] not in SETUP]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, folder, capsys):
    names = {"__name__": "example"}
    for kind, body in blocks(page):
        if kind == "python":
            exec(compile(body, str(page), "exec"), names)
        else:
            for words in commands(body):
                assert status_of(words) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


def test_main_pages_have_blocks():
    for name in (
        "README.md",
        "apps/tabular/prediction/README.md",
        "docs/tabular.md",
        "docs/asr.md",
        "docs/segmentation.md",
    ):
        assert {kind for kind, _ in blocks(ROOT / name)} == {"bash", "python"}, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_listed():
    """In the README, so that a reader finds it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"({page.relative_to(ROOT).as_posix()})" in text, page.name
