import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.command import require, run
from core.errors import InputError
from core.training import Interrupted

ROOT = Path(__file__).parents[3]


def raising(error):
    def verb(argv):
        raise error

    return verb


def test_status_and_arguments_pass_through():
    seen = []
    assert run(lambda argv: seen.append(argv), ("a", "--debug", "b")) == 0
    assert seen == [["a", "b"]]
    assert run(lambda argv: 3, []) == 3


def test_arguments_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "x"])
    assert run(lambda argv: len(argv)) == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("no such column", where="a.csv"), 2, "error: a.csv: no such column\n"),
        (InputError("many\nlines\n here"), 2, "error: many lines here\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError(), 2, "error: not enough memory; use smaller batches or a smaller preset\n"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            2,
            "error: not enough mem",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "error: not enough memory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/a"),
            2,
            "error: /runs/a: no room to write (No space left",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "error: no room to write (Disk quota exceeded)"),
        (SystemExit(0), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(5), 5, ""),
        (SystemExit("text"), 1, ""),
    ],
    ids=repr,
)
def test_each_ending_has_its_line_and_status(error, status, text, capsys):
    assert run(raising(error), []) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(text)
    assert err.count("\n") == bool(text)


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("x"), FileNotFoundError("x"), KeyError()], ids=repr)
def test_our_own_mistakes_keep_their_traceback(error, capsys):
    assert run(raising(error), []) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert type(error).__name__ in err


@pytest.mark.parametrize("error", [InputError("wrong"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_debug_shows_the_traceback_and_the_line(error, capsys):
    assert run(raising(error), ["a", "--debug"]) in (2, 130)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in verb\n    raise error" in err


def test_interrupted_training_says_how_to_go_on(capsys):
    assert run(raising(Interrupted(Path("runs/a"))), []) == 130
    err = capsys.readouterr().err
    assert "runs/a" in err
    assert "the same command goes on" in err
    assert err.count("\n") == 1
    assert run(raising(Interrupted(None)), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def script(body, **options):
    text = f"import sys, time\nfrom core.command import run, say\ndef verb(argv):\n    {body}\nsys.exit(run(verb, []))"
    return subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, text=True, stderr=subprocess.PIPE, **options)


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with script("say('x' * 10)", stdout=writing) as process:
        os.close(writing)
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_control_c():
    with script("say('ready'); sys.stdout.flush(); time.sleep(60)", stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode == 130


def test_require_names_the_extra_only_when_the_module_itself_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    assert require("os.path", "tabular") is os.path
    with pytest.raises(InputError, match=r'^no_such is not installed; pip install "manyformer\[tabular\]"$'):
        require("no_such.part", "tabular")
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        require("broken_module", "tabular")
