from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import core.command.environment as facts
from core.command import RunDirectory, only_writer, read_config, to_json
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 32
    name: str = "1e-3"
    optim: Optim = field(default_factory=Optim)


def test_a_new_run_holds_its_config_and_environment(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "b", Config(width=5), task="test")
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "environment.json"]
    assert read_config(Config, run.path / "config.yaml") == Config(width=5)
    assert run.config(Config) == Config(width=5)
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["task"] == "test"
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert environment["threads"] == torch.get_num_threads()
    below = ["metrics.jsonl", "checkpoints/last", "checkpoints/best", "report/index.html"]
    assert [run.metrics, run.last, run.best, run.report] == [run.path / name for name in below]


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    assert RunDirectory.create(tmp_path, Config(), task="test").config(Config) == Config()


def test_the_same_config_takes_the_run_up(tmp_path):
    RunDirectory.create(tmp_path, Config(), task="test")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    before = (tmp_path / "environment.json").read_bytes()
    RunDirectory.create(tmp_path, Config(), task="test")
    assert (tmp_path / "environment.json").read_bytes() == before
    assert RunDirectory.open(tmp_path, task="test").config(Config) == Config()


def test_another_config_is_refused_naming_the_fields(tmp_path):
    RunDirectory.create(tmp_path, Config(), task="test")
    other = replace(Config(), name="b", optim=Optim(lr=2e-5))
    with pytest.raises(InputError, match=r"another config \(it differs in name, optim\.lr\)"):
        RunDirectory.create(tmp_path, other, task="test")
    assert RunDirectory.open(tmp_path, task="test").config(Config) == Config()


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Config(width=5), None),
        (Config(width=5, name="b"), "it differs in name"),
        (Config(width=5, optim=Optim(lr=1.0)), "it differs in optim.lr"),
        (Config(width=6), "it differs in width"),
    ],
    ids=str,
)
def test_a_run_from_before_a_field_was_added_goes_on_where_the_field_has_its_default(asked, line, tmp_path, capsys):
    run = RunDirectory.create(tmp_path, Config(width=5), task="test")
    run.config_file.write_text("width: 5\noptim: {}\n")
    assert run.config(Config) == Config(width=5)
    said = f"{run.config_file}: was written before there was name, optim.lr; read with the default\n"
    assert capsys.readouterr() == ("", said)
    if line is None:
        RunDirectory.create(tmp_path, asked, task="test")
    else:
        with pytest.raises(InputError, match=line):
            RunDirectory.create(tmp_path, asked, task="test")
    assert capsys.readouterr() == ("", said)
    assert run.config_file.read_text() == "width: 5\noptim: {}\n"


@pytest.mark.parametrize("text", ["", "width: 5\nwidht: 5\n", "[]"])
def test_a_config_that_is_damaged_is_refused(text, tmp_path, capsys):
    run = RunDirectory.create(tmp_path, Config(), task="test")
    run.config_file.write_text(text)
    with pytest.raises(InputError, match=str(run.config_file)):
        run.config(Config)
    assert capsys.readouterr() == ("", "")


def test_another_task_is_refused(tmp_path):
    RunDirectory.create(tmp_path, Config(), task="tabular")
    for make in (
        lambda: RunDirectory.create(tmp_path, Config(), task="asr"),
        lambda: RunDirectory.open(tmp_path, task="asr"),
    ):
        with pytest.raises(InputError, match="is a run of 'tabular', not of 'asr'"):
            make()


@pytest.mark.parametrize("held", [["notes.txt"], [".git"], ["config.yaml"], ["environment.json", "a.tex"]], ids=str)
def test_a_folder_with_something_else_is_left_alone(held, tmp_path):
    for name in held:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="holds other files than a run"):
        RunDirectory.create(tmp_path, Config(), task="test")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(held, "mine")


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"format": "other", "task": "test"}', "\x00"])
def test_an_environment_that_is_not_ours(text, tmp_path):
    (tmp_path / "config.yaml").write_text("width: 1")
    (tmp_path / "environment.json").write_text(text)
    for make in (RunDirectory.create, lambda path, config, task: RunDirectory.open(path, task=task)):
        with pytest.raises(InputError, match=str(tmp_path)) as caught:
            make(tmp_path, Config(), task="test")
        assert len(str(caught.value)) < 400


def test_what_a_kill_at_birth_leaves_is_taken_over(tmp_path):
    for name in ("environment.json", ".config.yaml.tmp"):
        (tmp_path / name).write_text("{")
    RunDirectory.create(tmp_path, Config(), task="test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "environment.json"]


def test_what_is_no_run(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match="is not a run directory"):
            RunDirectory.open(path, task="test")
    with pytest.raises(InputError, match="cannot be a run directory"):
        RunDirectory.create(tmp_path / "file", Config(), task="test")


def test_no_environment_variable_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "a-secret-of-mine")
    RunDirectory.create(tmp_path, Config(), task="test")
    assert all("a-secret-of-mine" not in path.read_text() for path in tmp_path.iterdir())


def test_commit_of_a_checkout(tmp_path):
    assert facts._commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert facts._commit(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert facts._commit(tmp_path) == f"{head}-dirty"


def test_a_broken_checkout_or_no_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    assert facts._commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert facts._commit(tmp_path) is None


def test_json_of_results():
    value = {
        "z": np.float64(0.5),
        "a": [float("nan"), float("inf"), np.float32("nan"), torch.tensor(float("-inf"))],
        "array": np.arange(3),
        "tensor": torch.tensor([[1.5]]),
        "scalar": (np.int64(3), torch.tensor(4), True, np.bool_(False), None),
        "path": Path("a/b"),
        "config": Optim(),
        "text": "größe",
        3: "three",
    }
    text = to_json(value)
    back = json.loads(text, parse_constant=pytest.fail)
    assert list(back) == ["z", "a", "array", "tensor", "scalar", "path", "config", "text", "3"]
    assert back["z"] == 0.5
    assert back["a"] == [None] * 4
    assert (back["array"], back["tensor"]) == ([0, 1, 2], [[1.5]])
    assert back["scalar"] == [3, 4, True, False, None]
    assert type(back["scalar"][0]) is int
    assert (back["path"], back["config"]) == ("a/b", {"lr": 1e-5})
    assert "größe" in text
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_json({"x": {1, 2}})


def test_a_folder_has_one_writer_and_is_free_again_afterwards(tmp_path):
    folder = tmp_path / "deep" / "run"
    with only_writer(folder):
        with pytest.raises(InputError, match="another process is writing"), only_writer(folder):
            pass
        (folder / "kept.txt").write_text("x")
    with only_writer(folder):
        assert [path.name for path in folder.iterdir()] == ["kept.txt"]


def test_a_folder_that_stays_empty_is_removed_and_a_file_is_no_folder(tmp_path):
    with only_writer(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be a run directory"), only_writer(tmp_path / "file"):
        pass


@pytest.mark.parametrize("again", [None, [], ["theirs.txt"]], ids=str)
def test_a_folder_that_somebody_removes_or_makes_again_is_left_to_them(again, tmp_path):
    folder = tmp_path / "run"
    with only_writer(folder):
        folder.rmdir()
        if again is not None:
            folder.mkdir()
            for name in again:
                (folder / name).write_text("x")
    assert folder.exists() == (again is not None)
    assert again is None or sorted(path.name for path in folder.iterdir()) == again


def test_what_create_wrote_can_be_taken_back(tmp_path):
    RunDirectory.create(tmp_path / "run", Config(), task="test").discard()
    assert list((tmp_path / "run").iterdir()) == []
