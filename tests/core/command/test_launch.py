"""The launcher, with children that take no time to start; what trainings do in it is tested with the training room."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from core.artefact import save
from core.command import launch as module
from core.command.launch import launch, own_command
from core.errors import InputError

RANK = "import os, signal, sys, time; rank = int(os.environ['RANK']); "
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.3)
    monkeypatch.setattr(module, "KILL_SECONDS", 0.3)


def children(code, folder, processes=2):
    """Launch children that run the code, which knows its ``rank``."""
    return launch([sys.executable, "-S", "-c", RANK + code], processes, last=folder)


def test_each_knows_its_place(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ", ".join(f"os.environ['{name}']" for name in VARIABLES)
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join([{names}]))"
    assert children(code, tmp_path, 3) == 0
    threads = max(1, len(os.sched_getaffinity(0)) // 3)
    for rank in range(3):
        assert (tmp_path / str(rank)).read_text() == f"{rank} {rank} 3 3 0 127.0.0.1 {threads}"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert children(code, tmp_path) == 0
    assert (tmp_path / "1").read_text().endswith(" 7")


@pytest.mark.parametrize("status", [1, 2, 130])
def test_the_first_speaks_for_all(tmp_path, capfd, status):
    """The others are ended, and nobody hears them."""
    code = f"print('one', rank); sys.stderr.write(f'two {{rank}}\\n'); time.sleep(60 * rank); sys.exit({status})"
    assert children(code, tmp_path) == status
    assert capfd.readouterr() == ("one 0\n", "two 0\n")


def test_another_that_fails_on_its_own_is_heard(tmp_path, capfd):
    code = "rank or (time.sleep(0.2), sys.exit(75)); sys.stderr.write('no such disk\\n'); sys.exit(2)"
    assert children(code, tmp_path) == 2
    assert capfd.readouterr() == ("", "no such disk\n")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_killed_one_is_told_with_what_was_saved(tmp_path, deaf):
    """Whether the first notices, or has to be killed itself."""
    first = "signal.signal(15, signal.SIG_IGN); time.sleep(60)" if deaf else "time.sleep(0.2); sys.exit(75)"
    code = f"exec('os.kill(os.getpid(), 9)' if rank else '{first}')"
    with pytest.raises(InputError) as caught:
        children(code, tmp_path)
    line = "process 1 of 2 died (killed by SIGKILL, as happens where memory runs out); nothing was saved yet"
    assert str(caught.value) == f"{line}; the same command goes on"
    state = {"state": {"step": 120}}
    save(tmp_path / "member-0" / "last", state, kind="training-state", version=1)
    save(tmp_path / "member-0" / "best", state, kind="training-best", version=1)
    with pytest.raises(InputError, match="the last saved state is of step 120; the same command goes on"):
        children(code, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on_once(tmp_path, number):
    code = (
        f"heard = []; signal.signal({int(number)}, lambda *_: heard.append(1)); open(f'{tmp_path}/{{rank}}', 'w'); "
        "exec('while not heard: time.sleep(0.01)'); time.sleep(0.3); sys.exit(129 + len(heard))"
    )

    def tell():
        while len([*tmp_path.iterdir()]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=tell)
    thread.start()
    assert children(code, tmp_path) == 130
    thread.join()
    assert signal.getsignal(number) is before


def test_the_command_is_the_one_we_were_called_by(monkeypatch):
    argv = ["--out", "a", "--devices", "2"]
    assert own_command("apps.example.train", argv) == [sys.executable, "-m", "apps.example.train", *argv]
    monkeypatch.setattr(sys, "argv", ["/bin/manyformer", "tabular", "train", "--debug", *argv])
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "-X", "dev", "/bin/manyformer", "tabular", "train", "--debug", *argv]
    )
    assert own_command("apps.example.train", argv) == [sys.executable, *sys.orig_argv[1:]]
