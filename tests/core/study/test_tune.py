"""A search: its trials are trainings, its best settings a config, and a kill changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.command import read_config, run
from core.study import tune
from core.study.journal import Journal, read_events
from core.study.search import Searched, Watcher, parse_searched, shares_of
from core.study.worker import Pruned

optuna = pytest.importorskip("optuna")

ASKED = "--search optim.lr=log:1e-3..0.3 --search model.width=2..5 --search optim.betas=[0.9,0.999],[0.5,0.9]"


@pytest.fixture
def ask(toy, tmp_path, monkeypatch, capsys):
    """Ask for a search in the folder ``out`` of a new current folder; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def asked(line, out="out"):
        status = run(lambda words: tune(toy.TOY, words), [*line.split(), "--out", out])
        return status, *capsys.readouterr()

    return asked


def trials_of(folder):
    """What equal searches share: all but the clock."""
    results = json.loads((folder / "results.json").read_text())
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in results["trials"]]


def test_the_best_settings_train_to_the_best_number(toy, tmp_path, ask):
    """The oracle: the config that was written, trained here."""
    status, out, err = ask(f"{ASKED} --trials 6")
    assert status == 0
    assert err.count("\n") == 6
    trials = trials_of(tmp_path / "out")
    best = min(trials, key=lambda trial: trial["value"])
    config = read_config(toy.Config, tmp_path / "out" / "best.yaml")
    assert (config.optim.lr, config.model.width) == (best["params"]["optim.lr"], best["params"]["model.width"])
    assert toy.TOY.fit(config, toy.TOY.load(toy.Source(), config)).best == best["value"]
    assert len({trial["params"]["optim.lr"] for trial in trials}) == 6
    assert f"the best settings are in {Path('out') / 'best.yaml'}" in out
    assert "What mattered" in (tmp_path / "out" / "report" / "index.html").read_text()


def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path, ask):
    assert ask(f"{ASKED} --trials 5", "whole")[0] == 0
    assert ask(f"{ASKED} --trials 2", "cut")[0] == 0
    ended = (tmp_path / "cut" / "trials.log").read_bytes()
    assert ask(f"{ASKED} --trials 3", "cut")[0] == 0
    # Killed while the third trial was written to Optuna's journal, which was locked.
    (tmp_path / "cut" / "trials.log").write_bytes(ended + b'{"op_code": 4, "wor')
    (tmp_path / "cut" / "trials.log.lock").symlink_to("trials.log")
    log = tmp_path / "cut" / "runs" / "trial-2.jsonl"
    before = log.read_bytes()
    assert ask(f"{ASKED} --trials 4", "cut")[0] == 0
    assert log.read_bytes() == before
    # Killed within the fifth: its settings are drawn, nothing else.
    assert ask(f"{ASKED} --trials 5", "cut")[0] == 0
    assert trials_of(tmp_path / "cut") == trials_of(tmp_path / "whole")


def test_what_fails_is_written_down_and_the_search_goes_on(tmp_path, ask):
    status, out, _ = ask(
        "--search behaviour=well,diverges,raises,crashes --search model.width=12,13 --trials 12 --seed 2"
    )
    assert status == 0
    seen = set()
    for trial in trials_of(tmp_path / "out"):
        behaviour, width = trial["params"]["behaviour"], trial["params"]["model.width"]
        reason, state = trial.get("reason", ""), trial["state"]
        expected = {"well": "complete", "diverges": "pruned", "raises": "fail", "crashes": "fail"}[behaviour]
        if width == "13" and behaviour in ("well", "diverges"):
            expected = "fail"
            assert reason == "model.width: 13 units bring bad luck; take 12"
        elif behaviour == "diverges":
            assert reason.startswith("the loss became inf")
        elif behaviour == "raises":
            assert reason == "ZeroDivisionError: one over none"
        assert state == expected
        seen.add(state)
    assert seen == {"complete", "pruned", "fail"}
    assert "failed" in out


def test_a_budget_decides_the_epochs_of_each_trial(tmp_path, ask):
    assert ask("--search model.width=2..5 --trials 3 --minutes-per-run 2 --no-prune")[0] == 0
    for trial in trials_of(tmp_path / "out"):
        assert trial["max_epochs"] == 2 * trial["params"]["model.width"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{ASKED} --trials 2 --model.dropout 0.5", "it differs in base.model.dropout"),
        ("--search model.width=2..6 --trials 2", "it differs in search.optim.lr, search.model.width"),
        (f"{ASKED} --data other --trials 2", "digests.train"),
    ],
)
def test_another_question_is_refused(tmp_path, ask, line, words):
    assert ask(f"{ASKED} --trials 1")[0] == 0
    before = (tmp_path / "out" / "search.json").read_bytes()
    status, _, err = ask(line)
    assert status == 2
    assert words in err
    assert (tmp_path / "out" / "search.json").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "nothing is searched; name a field: --search optim.lr=log:1e-4..1e-2"),
        ("--search optim.lr=1..0.1", "--search: optim.lr: 1..0.1 is no range; the lower end comes first"),
        ("--search optim.lr=log:0..1", "0..1 is no range; the lower end comes first, and has a logarithm"),
        ("--search model.width=log:1e-4..1", "--search: model.width: expected a whole number, got 0.0001"),
        ("--search model.act=relu..tanh", "--search: model.act: a range needs two numbers"),
        ("--search model.widht=1..2", "did you mean 'model.width'"),
        ("--search fit.monitor=mse,loss", "--search: fit.monitor: decides which number trials are judged by"),
        ("--search seed=1..2", "the seeds are no settings"),
        ("--search optim.lr=1,2 --optim.lr 1", "is also set by --optim.lr"),
        ("--search fit.max_epochs=1..3 --minutes-per-run 1", "is decided by --minutes-per-run"),
        ("--search optim.lr=1,2 --minutes 0", "--minutes: 0 minutes leave no time"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, ask, line, words):
    status, out, err = ask(line)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=log:1e-4..1e-2", Searched(field="optim.lr", kind="float", values=(1e-4, 1e-2), log=True)),
        ("optim.lr=0.5..1", Searched(field="optim.lr", kind="float", values=(0.5, 1.0))),
        ("model.width=log:2..64", Searched(field="model.width", kind="int", values=(2, 64), log=True)),
        ("model.kernel=none,3", Searched(field="model.kernel", kind="choice", values=(None, 3))),
    ],
)
def test_what_is_searched(toy, text, expected):
    assert parse_searched(text, toy.Config()) == expected


def test_choices_of_any_kind_come_back(toy):
    searched = parse_searched("optim.betas=[0.9,0.999],[0.5,0.9]", toy.Config())
    assert [searched.value(drawn) for drawn in searched.distribution().choices] == [[0.9, 0.999], [0.5, 0.9]]


def epochs(values, of):
    return [{"event": "epoch", "epoch": 1 + i, "of": of, "value": value} for i, value in enumerate(values)]


def test_shares_are_of_the_epochs_whatever_their_number():
    """What was not finite is null in the log, and no best value."""
    assert shares_of(epochs([5, None, 3, 4], 20), greater=False) == {1: 5, 2: 3}
    few = shares_of(epochs([5, 7, 3], 3), greater=True)
    assert few == {share: 5 if share <= 3 else 7 for share in range(1, 11)}
    assert shares_of(epochs([None, None], 2), greater=True) == {}
    assert shares_of([], greater=True) == {}


@pytest.mark.parametrize("greater", [True, False])
def test_a_trial_is_pruned_where_it_is_behind_the_median(tmp_path, greater):
    sign = 1 if greater else -1
    rivals = [
        optuna.trial.create_trial(
            value=sign * 1.0, intermediate_values={s: sign * (level + s / 100) for s in range(1, 11)}
        )
        for level in (0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    for level, pruned_at in ((0.69, 6), (0.71, None)):
        with Journal.held(tmp_path / f"{level}.jsonl") as journal:
            watcher = Watcher(journal, name="score", greater=greater, epochs=20, rivals=rivals)
            ended = None
            for epoch in range(1, 21):
                try:
                    watcher.evaluated({"epoch": epoch, "score": sign * (level + epoch / 200)}, False)
                except Pruned as end:
                    ended, words = epoch, str(end)
                    break
        assert ended == pruned_at
        assert pruned_at is None or words == "behind the median of the others after 30 % of its epochs"
        assert [event["epoch"] for event in read_events(tmp_path / f"{level}.jsonl")] == [*range(1, (ended or 20) + 1)]


def test_with_few_rivals_or_none_nothing_is_pruned(tmp_path):
    rival = optuna.trial.create_trial(value=1.0, intermediate_values=dict.fromkeys(range(1, 11), 1.0))
    for name, rivals in (("few", [rival] * 4), ("none", None)):
        with Journal.held(tmp_path / name) as journal:
            watcher = Watcher(journal, name="score", greater=True, epochs=10, rivals=rivals)
            for epoch in range(1, 11):
                watcher.evaluated({"epoch": epoch, "score": 0.0}, False)


def test_a_folder_of_something_else_is_left_alone(tmp_path, ask):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    assert "holds other files than a search" in ask(f"{ASKED} --trials 1")[2]
