"""A log that is cut anywhere says nothing false, and goes on."""

from __future__ import annotations

import json

import pytest

from core.errors import InputError
from core.study.journal import Journal, ending, read_events


def write(path, *events):
    with Journal.held(path) as journal:
        for event, facts in events:
            journal.append(event, facts)


def test_events_come_back_exactly(tmp_path):
    path = tmp_path / "runs" / "a.jsonl"
    assert read_events(path) == []
    write(path, ("started", {"pid": 1}), ("finished", {"metrics": {"auc": 0.1 + 0.2}}))
    assert read_events(path)[1] == {"event": "finished", "metrics": {"auc": 0.1 + 0.2}}
    assert ending(read_events(path)) == read_events(path)[1]


def test_a_line_cut_at_any_byte_is_no_event_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    first, last = json.dumps({"event": "started"}) + "\n", json.dumps({"event": "finished", "seconds": 12.5})
    for length in range(len(last)):
        path.write_text(first + last[:length])
        assert ending(read_events(path)) is None
        write(path, ("started", None), ("finished", {"seconds": 3}))
        assert [event["event"] for event in read_events(path)] == ["started", "started", "finished"]
        assert ending(read_events(path))["seconds"] == 3
    path.write_text(first + last)  # cut just before its end of line: it is all there
    assert ending(read_events(path))["seconds"] == 12.5
    write(path, ("started", None))
    assert ending(read_events(path))["seconds"] == 12.5


def test_bytes_that_are_no_text_are_no_event(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\x00\xff\n[1]\n{"a": 1}\n{"event": 3}\n' + b"[" * 100_000 + b'\n{"event": "started"}\n')
    assert read_events(path) == [{"event": "started"}]


def test_a_success_is_final(tmp_path):
    started, failed, finished = {"event": "started"}, {"event": "failed"}, {"event": "finished"}
    assert ending([started, finished, failed]) == finished
    assert ending([started, failed, finished], retry_failed=True) == finished
    assert ending([started, failed, started]) == failed
    assert ending([started, failed, started], retry_failed=True) is None
    assert ending([started, {"event": "diverged"}], retry_failed=True) == {"event": "diverged"}


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "a.jsonl"
    waiting = pytest.raises(InputError, match="another process is at this run")
    with Journal.held(path), waiting, Journal.held(path, patience=0.05):
        pass
    with Journal.held(path, patience=0.0):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "runs" / "a.jsonl", ("started", None))


def test_every_line_is_strict_json(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, ("finished", {"metrics": {"auc": float("nan"), "worst": [float("-inf"), 1.5]}}))
    (event,) = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert event["metrics"] == {"auc": None, "worst": [None, 1.5]}
