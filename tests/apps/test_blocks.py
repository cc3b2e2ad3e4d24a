"""The catalogue over the real applications: what they take is what they build, what they refuse they name."""

import pytest

from apps import cli
from apps.asr.application import APPLICATION as SPEECH
from apps.tabular.prediction.application import APPLICATION as TABLES
from apps.vision.segmentation.application import APPLICATION as PICTURES
from core.application.blocks import entries, known

APPLICATIONS = {"tabular": TABLES, "asr": SPEECH, "segmentation": PICTURES}


@pytest.fixture(scope="module")
def found():
    return {(entry.row.family, entry.row.name): entry for entry in entries(APPLICATIONS, known())}


@pytest.mark.parametrize(
    ("family", "name", "takers"),
    [
        ("mixer", "softmax", ["tabular", "asr", "segmentation"]),
        ("mixer", "linformer", ["tabular with model.mask=full"]),
        ("mixer", "pooling", ["tabular with model.mask=full", "asr", "segmentation"]),
        ("mixer", "stickbreaking", ["tabular"]),
        ("mixer", "convolution", ["tabular", "asr", "segmentation"]),
        ("mixer", "sra", ["segmentation"]),
        ("norm", "layernorm", ["tabular", "asr", "segmentation"]),
        ("norm", "groupnorm", ["tabular with model.mask=full", "asr", "segmentation"]),
        ("feedforward", "memory", ["tabular", "asr", "segmentation"]),
        ("position", "alibi", ["asr with model.mixer=softmax,topk"]),
        ("pass", "fold", ["tabular", "asr", "segmentation"]),
        ("pass", "merge", []),
    ],
)
def test_takers(family, name, takers, found):
    assert found[family, name].takers == takers


def test_every_block_is_taken_by_somebody(found):
    # These undo another pass, or want a setting that is a number: nested sizes, one head.
    after = {("pass", name) for name in ("merge", "merge_experts", "extract", "collapse")}
    assert {key for key, entry in found.items() if not entry.takers} <= after


def test_a_refusal_names_the_block_the_need_and_what_fits(found):
    refused = [
        place for entry in found.values() for answers in entry.answers.values() for place in answers if place.reason
    ]
    assert len(refused) >= 8
    for (family, name), entry in found.items():
        for place in (place for answers in entry.answers.values() for place in answers if place.reason):
            assert "\n" not in place.reason
            if family == "pass":
                assert place.reason.startswith(f"{name}: ")
                continue
            assert f"'{name}'" in place.reason
            assert "; these fit: " in place.reason or "; use the mask 'full'" in place.reason


@pytest.mark.parametrize("application", APPLICATIONS.values(), ids=list(APPLICATIONS))
def test_presets_of_moderate_size_have_a_prototype(application):
    """The large ones take seconds to build."""
    for name, preset in application.presets.items():
        if name in ("default", "tiny", "official", "xs", "s", "b0", "b1"):
            assert sum(parameter.numel() for parameter in application.prototype(preset()).parameters()) > 1000


def test_the_command(capsys):
    assert cli.main(["blocks", "groupnorm"]) == 0
    out = capsys.readouterr().out
    assert "which the mask 'semi_permeable' forbids; use the mask 'full', or another norm; takes it with" in out
    assert cli.main(["blocks", "gruopnorm"]) == 2
    assert capsys.readouterr().err == "error: manyformer blocks: no block 'gruopnorm'; did you mean 'groupnorm'?\n"


def test_what_is_not_installed_is_said(monkeypatch, capsys):
    monkeypatch.setitem(cli.TASKS, "asr", cli.TASKS["asr"]._replace(needs=("no_such_module",)))
    assert cli.main(["blocks", "mlp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  asr        not installed" in lines
    assert "  tabular    takes it as model.feedforward" in lines


def test_the_command_is_listed(capsys):
    assert cli.main([]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["blocks", cli.CATALOGUE["blocks"]] in lines
