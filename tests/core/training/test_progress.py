from __future__ import annotations

import io
import time

import pytest

from core.errors import InputError
from core.training.progress import Bar, Clock, Plain, Silent, choose


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_have_no_control_characters(toy):
    stream = io.StringIO()
    toy.train(progress=Plain(stream, every=0.0))
    text = stream.getvalue()
    assert all(character.isprintable() or character == "\n" for character in text)
    lines = text.splitlines()
    assert len(lines) == toy.STEPS + 1
    assert lines[0].startswith("step 1/20, loss ")
    assert "epoch 1: train_loss" in lines[5]
    assert lines[-1].startswith("stopped by epochs at step 20; epoch 4:")


def test_plain_is_quiet_between_its_lines(toy):
    stream = io.StringIO()
    toy.train(progress=Plain(stream, every=1e9))
    assert len(stream.getvalue().splitlines()) == 1


def test_auto_follows_the_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(choose("auto"), Bar)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(choose("auto"), Plain)
    assert isinstance(choose("off"), Silent)
    with pytest.raises(InputError, match="no progress 'loud'"):
        choose("loud")


def test_the_bar_ends_full(toy, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    toy.train(progress="bar")
    last_frame = terminal.getvalue().rpartition("20/20")[2]
    assert "0:00 left" in last_frame
    assert "stopped by epochs at step 20; epoch 4: train_loss" in last_frame


def test_time_left_is_the_shorter_of_steps_and_minutes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    by_steps, by_minutes = Clock(10, 110, None), Clock(10, 110, 60.0)
    assert by_steps.remaining(10) is None
    now[0] = 120.0  # 20 steps in 20 seconds: 80 more
    assert by_steps.remaining(30) == 80.0
    assert by_minutes.remaining(30) == 40.0
