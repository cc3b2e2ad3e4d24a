import json
import os

import pytest

from benchmarks.common import record
from benchmarks.common.table import markdown


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "results" / "a.json"
    record.write_json(path, {"value": 1.5})

    def refuse(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        record.write_json(path, {"value": 2.5})
    assert json.loads(path.read_text()) == {"value": 1.5}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        record.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_digest_follows_content_and_name_of_python_files_only(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    (tmp_path / "single.py").write_text("")
    before = record.source_digest("package", "single.py", root=tmp_path)
    (package / "notes.txt").write_text("not code")
    assert record.source_digest("package", "single.py", root=tmp_path) == before
    assert record.source_digest("single.py", "package", root=tmp_path) == before
    (package / "a.py").rename(package / "b.py")
    renamed = record.source_digest("package", "single.py", root=tmp_path)
    (package / "b.py").write_text("a = 2\n")
    assert len({before, renamed, record.source_digest("package", "single.py", root=tmp_path)}) == 3


def test_the_command_names_no_folder_of_this_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--data", "/home/someone/data/tables", "--out", "results/x.json"])
    command = record.provenance(threads=1)["command"]
    assert command.endswith("--data tables --out results/x.json")


def test_provenance_names_threads_versions_and_machine():
    found = record.provenance(threads=3, packages=("scikit-learn", "no-such-package"))
    assert found["threads"] == 3
    assert found["packages"]["no-such-package"] is None
    assert found["packages"]["scikit-learn"].count(".") >= 1
    assert found["machine"]["cores"] >= 1


def test_markdown():
    assert markdown(("set", "auc"), [("adult", "0.93")]) == "| set | auc |\n| :-- | --: |\n| adult | 0.93 |\n"
