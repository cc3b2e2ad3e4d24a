"""``train --budget-minutes``: the number of epochs is decided when a run begins, and kept."""

from __future__ import annotations

from dataclasses import dataclass

from core.application import train
from core.command import RunDirectory, TrainArguments, run


def test_decided_once_and_kept(toy, tmp_path, monkeypatch, capsys):
    @dataclass(frozen=True, kw_only=True)
    class Arguments(TrainArguments, toy.Source):
        """Train a toy."""

    def ask(line):
        return run(lambda words: train(toy.TOY, Arguments, words), [*line.split(), "--out", "a", "--progress", "off"])

    monkeypatch.chdir(tmp_path)
    assert ask("--budget-minutes 2 --fit.max-epochs 50 --fit.patience 7") == 0
    config = RunDirectory.open("a", task="toy").config(toy.Config)
    assert (config.fit.max_epochs, config.fit.patience, config.fit.max_minutes) == (8, 7, None)
    assert len((tmp_path / "a" / "checkpoints" / "last" / "metrics.jsonl").read_text().splitlines()) == 8
    capsys.readouterr()
    assert ask("--budget-minutes 3 --fit.patience 7") == 0  # the run has its number
    assert "this run is finished" in capsys.readouterr().out
    assert (tmp_path / "decisions").read_text() == "4\n"
    assert ask("--budget-minutes 3") == 2
    assert "it differs in fit.patience" in capsys.readouterr().err
    assert ask("--budget-minutes 0") == 2
    assert "--budget-minutes: 0 minutes leave no time" in capsys.readouterr().err
