"""From end to end on tiny loads; what was measured is kept, and what has changed is measured again."""

import json
import sys

import pytest

from benchmarks.blocks import __main__ as program
from benchmarks.blocks import code
from benchmarks.blocks import points as plan
from benchmarks.blocks.points import contenders

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


@pytest.fixture
def run(tmp_path, monkeypatch):
    loads = dict.fromkeys(plan.FAMILIES, ((2, 16, 32),))
    monkeypatch.setattr(plan, "LOADS", loads)
    monkeypatch.setattr(program, "peak_growth", lambda *_, **__: 1.0)
    measured = []

    def take_turns(calls, **_):
        measured.append(sorted(calls))
        return {name: [2.0, 4.0] for name in calls}

    monkeypatch.setattr(program, "take_turns", take_turns)
    out = tmp_path / "blocks.json"

    def go(*words):
        measured.clear()
        assert program.main(["--out", str(out), "--threads", "1", *words]) == 0
        return list(measured), json.loads(out.read_text())

    return go


def test_what_is_stored_is_not_measured_again(run, monkeypatch, capsys):
    first, payload = run("--family", "norm", "--family", "folded")
    assert first == [sorted(contenders("norm"))] * 4 + [sorted(contenders("folded"))] * 2
    assert len(payload["rows"]) == 4 * len(contenders("norm")) + 2 * len(contenders("folded"))
    assert {row["ratio"]["middle"] for row in payload["rows"]} == {1.0}
    assert "lower quartile of folded / linear map alone, prepbn: met" in capsys.readouterr().out
    assert run("--family", "norm", "--family", "folded")[0] == []
    plain, digest = program.digest, {"rmsnorm": "new"}
    monkeypatch.setattr(program, "digest", lambda family, name: digest.get(name) or plain(family, name))
    again, changed = run("--family", "norm")
    assert again == [["layernorm", "rmsnorm"]] * 4
    assert len(changed["rows"]) == len(payload["rows"])
    assert run("--family", "norm", "--rounds", "7")[0] == first[:4]


def test_a_kill_loses_one_point(run, monkeypatch):
    write = program.write
    written = []

    def interrupted(*arguments):
        write(*arguments)
        written.append(1)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(program, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--family", "feedforward")
    assert len(run("--family", "feedforward")[0]) == 2


def test_a_row_is_of_its_own_code_and_of_the_plain_ones():
    names = {path.name for path in code.behind(code.module_of("mixer", "nala causal"))}
    assert {"nala.py", "linear.py", "base.py", "headed.py", "rotary.py"} <= names
    assert not {"relative.py", "softmax.py", "__init__.py"} & names
    assert {"softmax.py"} <= {path.name for path in code.behind(code.module_of("mixer", "softmax"))}
    assert code.digest("norm", "layernorm") != code.digest("norm", "rmsnorm")
    for family in plan.FAMILIES:
        assert all(len(code.digest(family, name)) == 16 for name in contenders(family))


def test_time_and_memory_of_a_point_as_they_are(monkeypatch):
    options = program._parser().parse_args(["--rounds", "5", "--seconds", "0"])
    at = plan.Point(family="packed", tokens=64, batch=4, width=32, precision="fp32", mode="step")
    (row,) = program.measure(at, ["pooling packed"], options)
    assert (row["plain"], row["rounds"]) == ("pooling padded", 5)
    assert 0 < row["ratio"]["low"] <= row["ratio"]["middle"] <= row["ratio"]["high"]
    assert row["seconds"] > 0
    assert 0 <= row["memory_mib"] < 50
