import dataclasses
import json

import pytest

from apps.vision.segmentation.config import SIZES
from apps.vision.segmentation.info import describe, main
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.presets import PRESETS, tiny


def test_facts(capsys):
    assert main(["--size", "b0", "--height", "64", "--width", "96", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["encoder_parameters"], facts["parameters"]) == (3_319_392, 3_319_392 + 3_581_203)
    assert 0 < facts["encoder_macs"] < facts["macs"]
    assert main(["--size", "b0", "--height", "64", "--width", "96"]) == 0
    assert "mixer sra, pre layernorm" in capsys.readouterr().out


def test_facts_of_a_preset(capsys):
    assert main(["--preset", "tiny", "--height", "64", "--width", "64", "--classes", "3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["preset"], facts["outputs"], facts["switches"]["context"]) == ("tiny", 3, "fused")


@pytest.mark.parametrize("feedforward", ["mixffn", "experts"])
def test_a_network_without_values_counts_as_one_with_them(feedforward, capsys, monkeypatch):
    config = dataclasses.replace(tiny(), model=dataclasses.replace(tiny().model, feedforward=feedforward))
    monkeypatch.setitem(PRESETS, "tiny", lambda: config)
    assert main(["--preset", "tiny", "--height", "64", "--width", "96", "--classes", "3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    expected = describe(Segmentor(3, config.model), 64, 96)
    assert {name: facts[name] for name in expected if name != "size"} == json.loads(
        json.dumps({name: value for name, value in expected.items() if name != "size"})
    )


def test_facts_of_a_run_leave_its_network_as_it_is(finished, scored_target, capsys):
    run = finished("run", scored_target)
    assert main([str(run), "--height", "64", "--width", "64", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["classes"], facts["adaptation"]) == (["road", "sky", "car"], "none")
    assert main(["--preset", "tiny", "--height", "64", "--width", "64", "--classes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == facts["macs"]


@pytest.mark.parametrize(
    "argv", [["--size", "b9"], ["--height", "0"], ["--classes", "0"], ["--preset", "huge"], ["nowhere"]]
)
def test_nonsense_is_one_line(argv, capsys):
    assert main(argv) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert "b5" in SIZES
