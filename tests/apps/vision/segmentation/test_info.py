import json

import pytest

from apps.vision.segmentation.config import SIZES
from apps.vision.segmentation.info import main


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


@pytest.mark.parametrize(
    "argv", [["--size", "b9"], ["--height", "0"], ["--classes", "0"], ["--preset", "huge"], ["nowhere"]]
)
def test_nonsense_is_one_line(argv, capsys):
    assert main(argv) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert "b5" in SIZES
