from __future__ import annotations

import json

import pytest

from apps.asr import info
from apps.asr.presets import PRESETS, tiny
from apps.asr.recogniser import TASK
from apps.cli import main as manyformer
from core.command import RunDirectory


def facts(words, capsys):
    assert info.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_published_size_has_the_published_parameters(capsys):
    """L (25 D^2 + 103 D) + 23 D^2 + 32 D + (D + 1) V."""
    found = facts(["--preset", "xs", "--seconds", "0.5"], capsys)
    assert found["parameters"] == 16 * (25 * 144**2 + 103 * 144) + 23 * 144**2 + 32 * 144 + 145 * 128
    assert found["memory_mb"] == pytest.approx(36.12, abs=0.01)


def test_multiply_adds_grow_with_the_recording(capsys):
    short, long = (facts(["--preset", "tiny", "--seconds", text], capsys) for text in ("5", "10"))
    assert short["input"] == {"seconds": 5.0, "frames": 501, "bins": 80}
    assert 2 < long["macs"] / short["macs"] < 4  # attention grows with the square
    assert short["parameters"] == long["parameters"]


def test_info_of_a_run_is_that_of_its_model(babbler, tmp_path, capsys):
    recogniser = babbler()
    directory = RunDirectory.create(tmp_path / "run", tiny(), task=TASK)
    recogniser.save(directory.best)
    found = facts([str(tmp_path / "run")], capsys)
    assert found["parameters"] == sum(parameter.numel() for parameter in recogniser.model.parameters())
    assert found["outputs"] == recogniser.tokenizer.size
    assert found["switches"]["mixer"] == "relative"
    assert len(found["blocks"]) > 4
    assert info.main([str(tmp_path / "run")]) == 0
    assert "seconds 30.0, frames 3,001, bins 80" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give a run or --preset"),
        (["--preset", "xxs"], "did you mean 'xs'"),
        (["--preset", "tiny", "--seconds", "0"], "--seconds"),
        (["nowhere"], "not a run directory"),
    ],
)
def test_wrong_arguments_end_in_one_line(words, expected, capsys):
    assert info.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error


def test_the_one_command_reaches_the_verbs(capsys):
    assert manyformer(["asr", "info", "--preset", "tiny"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert manyformer(["asr", "trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


def test_every_preset_is_a_config_with_a_docstring():
    for name, make in PRESETS.items():
        config = make()
        assert config.model.layers >= 1
        assert getattr(make, "func", make).__doc__, name
    assert next(iter(PRESETS)) == "default"
