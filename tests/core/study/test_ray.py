"""The same runs on Ray: the same command, records and results."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.study.journal import ending, read_events

pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_runs_on_a_cluster_of_this_machine(finished, tmp_path, monkeypatch, ask):
    # Where its workers find the toy application; a real one is installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    status, _, err = ask("--vary model.width=3,4 --seeds 1 --ray")
    assert status == 0, err
    logs = [*(tmp_path / "study").glob("runs/*.jsonl")]
    assert len(logs) == 2
    for log in logs:
        here, there = (ending(read_events(path)) for path in (finished / "runs" / log.name, log))
        for name in ("event", "metrics", "best", "epochs", "steps"):
            assert there[name] == here[name]
        assert log.with_suffix(".npz").exists()
    assert [*(tmp_path / "study").glob("work/*")] == []
