"""Two processes train what one trains, by either strategy, from any state, and end as one.

Tolerances: float32, where only the order of sums differs, 2e-6 on weights of order one after 28 steps.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.artefact import load
from core.errors import InputError
from core.norm import BatchNorm
from core.training.group import LAUNCHER, Group, check_gpus, launched, together

PROGRAM = Path(__file__).with_name("team.py")
SECONDS = 280
pytestmark = pytest.mark.timeout(600)  # an idle machine takes a few seconds; a busy one shall not fail
CLOSE = {"rtol": 0.0, "atol": 2e-6}


@pytest.fixture(scope="module")
def team():
    return SimpleNamespace(**{k: v for k, v in runpy.run_path(str(PROGRAM), run_name="team").items() if k[0] != "_"})


def start(job: str, folder: Path) -> subprocess.Popen[str]:
    """The launcher of two processes."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), "launch", job, str(folder)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and standard error."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its processes notice
        process.communicate()
        raise
    return process.returncode, errors


def results(job: str, folder: Path) -> list[dict]:
    return [torch.load(folder / f"{job}-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(team):
    return team.outcome(*team.train())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("team")


@pytest.fixture(scope="module")
def straight(folder):
    status, errors = ended(start("straight", folder))
    assert (status, errors) == (0, "")
    return results("straight", folder)


def assert_alike(found, wanted, **tolerance):
    assert found["ends"][1:] == wanted["ends"][1:]
    assert found["history"] == [pytest.approx(record, rel=1e-5, abs=1e-6) for record in wanted["history"]]
    torch.testing.assert_close(found["weights"], wanted["weights"], **(tolerance or CLOSE))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_what_one_trains(straight, alone, strategy):
    """Losses, metrics, the best epoch and the averaged weights, with a batch of one example in every epoch."""
    for found in straight:
        assert_alike(found[strategy], alone)


def test_the_parts_of_a_batch_are_the_batch(straight, alone, team):
    """Each has every other example; of a batch of one the second goes along with what the first has."""
    for step, whole in enumerate(alone["seen"]):
        first, second = (found["ddp"]["seen"][step] for found in straight)
        assert first == whole[::2]
        assert second == (whole[1::2] or whole)
    assert [len(whole) for whole in alone["seen"]].count(1) == team.EPOCHS


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_processes_come_to_the_same_and_stopped_runs_to_the_unbroken_one(straight, strategy):
    """Bit for bit; the signal reached one process only."""
    first, second = (found[strategy] for found in straight)
    for found in (second, *(found[f"{strategy}-resumed"] for found in straight)):
        assert found["history"] == first["history"]
        assert found["ends"] == first["ends"]
        torch.testing.assert_close(found["weights"], first["weights"], rtol=0, atol=0)
    assert straight[0][f"{strategy}-resumed"]["steps"] == first["steps"] - 12  # stopped after 3 steps and 9 more


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_minutes_are_up_for_all_at_once(straight, strategy):
    assert [found[f"{strategy}-minutes"] for found in straight] == [[1, 2, 3]] * 2


def test_states_are_whole_whoever_wrote_them(straight, folder, team, alone):
    """The files of two processes are those of one: names, shapes, and numbers within rounding."""
    team.train(folder / "one-whole")
    states = [
        load(folder / f"{name}-whole" / "last", kind="training-state", version=1) for name in ("one", "ddp", "fsdp")
    ]
    for state in states[1:]:
        assert state["fingerprint"] == states[0]["fingerprint"]
        for part in ("model", "optimizer", "average", "best"):
            torch.testing.assert_close(state[part], states[0][part], rtol=1e-3, atol=2e-5)
        assert state["optimizer"].keys() == states[0]["optimizer"].keys()
    for name in ("one", "ddp", "fsdp"):
        best = load(folder / f"{name}-whole" / "best", kind="training-best", version=1)
        torch.testing.assert_close(best["model"], alone["weights"], **CLOSE)
        assert len((folder / f"{name}-whole" / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_run_goes_on_with_another_number_of_processes(straight, folder, team, alone):
    """Two, then one, then two that divide the model, then two that do not."""
    team.stopped(folder / "chain", 6, rank=0)
    status, errors = ended(start("onwards", folder))
    assert (status, errors) == (0, "")
    for found in results("onwards", folder):
        assert found["steps"] == len(alone["seen"]) - 5 - 7 - 4
        assert_alike(found, alone)


@pytest.mark.parametrize("case", range(5))
def test_batch_norm_of_parts_is_that_of_the_whole(straight, team, case):
    """Values, all gradients and running statistics, in float64."""
    parts = team.NORM_PARTS[case]
    counts = len(team.norm_rows(case)) if case < 4 else parts[0]
    rows = team.norm_rows(case)[:counts].requires_grad_()
    norm = BatchNorm(3, momentum=0.3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    y = norm(rows) if len(rows) != 1 else norm(rows.expand(2, 3))[:1]  # torch has no variance of one row
    y.pow(3).sum().backward()
    if len(rows) == 1:
        norm.running_var.fill_(1.0)
    found = [one["norm"][case] for one in straight]
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(torch.cat([one["y"] for one in found])[:counts], y.detach(), **close)
    torch.testing.assert_close(torch.cat([one["grads"][0] for one in found])[:counts], rows.grad, **close)
    for place, parameter in ((1, norm.weight), (2, norm.bias)):
        torch.testing.assert_close(sum(one["grads"][place] for one in found), parameter.grad, **close)
    for one in found:
        torch.testing.assert_close(one["running"], [norm.running_mean, norm.running_var], **close)


def test_unified_norm_of_parts_is_that_of_the_whole(straight, team):
    """Values, all gradients and every running value and window, from the first batch to those of a full window."""
    close = {"rtol": 1e-12, "atol": 1e-12}
    for step, wanted in enumerate(team.unified((7,), 0)):
        found = [one["unified"][step] for one in straight]
        torch.testing.assert_close(torch.cat([one["y"] for one in found]), wanted["y"], **close)
        torch.testing.assert_close(torch.cat([one["grads"][0] for one in found]), wanted["grads"][0], **close)
        for place in (1, 2):
            both = found[0]["grads"][place] + found[1]["grads"][place]
            torch.testing.assert_close(both, wanted["grads"][place], **close)
        for one in found:
            torch.testing.assert_close(one["state"], wanted["state"], **close)


def reached(folder: Path, step: int) -> None:
    """Wait until the slow run is at a step."""
    limit = time.monotonic() + SECONDS
    while not (folder / "at").exists() or int((folder / "at").read_text() or -1) < step:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_signals_and_deaths_end_all_and_the_same_command_goes_on(tmp_path, straight):
    """A signal to the launcher; then one process killed in mid-epoch; then the rest, bit for bit the unbroken run."""
    process = start("slow", tmp_path)
    reached(tmp_path, 4)
    process.send_signal(signal.SIGTERM)
    status, errors = ended(process)
    assert status == 130
    assert errors == f"interrupted; the state is saved in {tmp_path / 'slow'}; the same command goes on from there\n"
    first = load(tmp_path / "slow" / "last", kind="training-state", version=1)["state"]["step"]
    assert 5 <= first < 28
    (tmp_path / "at").unlink()
    process = start("slow", tmp_path)
    reached(tmp_path, 5)
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    status, errors = ended(process)
    then = load(tmp_path / "slow" / "last", kind="training-state", version=1)["state"]["step"]
    assert status == 2
    assert errors.count("\n") == 1
    assert "process 1 of 2 died (killed by SIGKILL" in errors
    assert f"the last saved state is of step {then}; the same command goes on" in errors
    assert then > first
    status, errors = ended(start("slow", tmp_path))
    assert (status, errors) == (0, "")
    for found in results("slow", tmp_path):
        assert found["steps"] == 28 - then
        assert found["history"] == straight[0]["ddp"]["history"]
        torch.testing.assert_close(found["weights"], straight[0]["ddp"]["weights"], rtol=0, atol=0)


@pytest.mark.slow
def test_processes_whose_launcher_is_killed_save_and_leave(tmp_path):
    process = start("slow", tmp_path)
    reached(tmp_path, 4)
    process.kill()
    process.communicate(timeout=SECONDS)
    children = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(2)]
    limit = time.monotonic() + SECONDS
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert 5 <= load(tmp_path / "slow" / "last", kind="training-state", version=1)["state"]["step"] < 28


def test_alone_nothing_is_shared(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", LAUNCHER):
        monkeypatch.delenv(name, raising=False)
    assert launched() is None
    with together() as group:
        assert (group.rank, group.size) == (0, 1)
    assert group.total([0.1, 2.0]) == group.first([0.1, 2.0]) == [0.1, 2.0]
    assert not Group().is_orphaned


def test_fewer_gpus_than_processes_are_refused(monkeypatch):
    for count, words in ((1, "there is 1; use at most 1, or CUDA_VISIBLE_DEVICES= to"), (3, "there are 3")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        check_gpus(count)
        with pytest.raises(InputError, match=words):
            check_gpus(count + 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_gpus(8)
