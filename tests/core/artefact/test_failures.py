"""Saving when the disk is full, when a step fails, when the process is killed, and while others read."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.artefact import disk, load, replace_file, replacing, save
from core.errors import InputError

KIND = {"kind": "test", "version": 3}
ROOT = Path(__file__).parents[3]


def tree(number, size=100):
    return {"number": number, "weights": {"w": torch.full((size,), float(number))}}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


FILL = """
import os, resource, signal, sys, torch
from core.artefact import save
from core.errors import InputError
folder = sys.argv[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
large, long = {"weights": torch.full((50_000,), 2.0)}, {"notes": ["word"] * 20_000}
for tree in (large, long):
    try:
        save(folder, {"number": 2, **tree}, kind="test", version=3)
    except InputError as error:
        print(error, sorted(os.listdir(folder)), sep=" | ")
"""


def test_a_full_disk_leaves_the_previous_version(tmp_path):
    """A real limit, met once while writing the tensors and once while writing the JSON."""
    save(tmp_path, tree(1), **KIND)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, (".safetensors", "artefact.json"), strict=True):
        said, held = line.split(" | ")
        assert f"{name}: cannot be written ({os.strerror(errno.EFBIG)})" in said
        assert held == str(sorted(before))
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_a_full_and_a_read_only_file_system(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        save(tmp_path, tree(1), **KIND)
        before = files(tmp_path)
        with pytest.raises(InputError, match="No space left on device"):
            save(tmp_path, tree(2, size=200_000), **KIND)
        assert files(tmp_path) == before
        assert load(tmp_path, **KIND)["number"] == 1
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(InputError, match="Read-only file system"):
            save(tmp_path, tree(2), **KIND)
        assert load(tmp_path, **KIND)["number"] == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_without_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    save(tmp_path, tree(1), **KIND)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            save(tmp_path, tree(2), **KIND)
    finally:
        tmp_path.chmod(0o700)
    assert load(tmp_path, **KIND)["number"] == 1


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=str(tmp_path / "file")):
            save(folder, tree(1), **KIND)
        with pytest.raises(InputError, match=str(tmp_path / "file")):
            load(folder, **KIND)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()], ids=repr)
def test_a_failure_at_each_step(call, error, tmp_path, monkeypatch):
    """At every step that touches the disk: the folder holds one complete version and nothing else."""
    save(tmp_path, tree(1), **KIND)
    calls = []

    def failing(real):
        def step(*arguments):
            calls.append(real)
            if len(calls) == call + 1:
                raise error
            return real(*arguments)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fsync", failing(os.fsync))
        patch.setattr(disk.os, "replace", failing(os.replace))
        with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
            save(tmp_path, tree(2), **KIND)
    # fsync, replace, fsync of the folder; fsync, replace: from here on the new version stands.
    assert load(tmp_path, **KIND)["number"] == (1 if call < 5 else 2)
    save(tmp_path, tree(3), **KIND)
    assert len(files(tmp_path)) == 2


def test_replace_file_keeps_the_old_one_when_it_fails(tmp_path):
    replace_file(tmp_path / "a.txt", "old")
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"a\.txt/b: cannot be written"):
        replace_file(tmp_path / "a.txt" / "b", "new")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "link").read_text() == "new"
    assert files(tmp_path) == ["a.txt", "link"]


WRITER = """
import torch
from core.artefact import save
def write(folder, number):
    while True:
        number += 1
        weights = torch.full((200_000,), float(number))
        save(folder, {"number": number, "words": [f"w{number}"] * 200, "weights": weights}, kind="test", version=3)
        yield number
"""

KILLER = """
import os, random, signal, sys, time
from core.artefact import load
folder, newest, random = sys.argv[1], 0, random.Random(0)
torch.set_num_threads(1)
for _ in range(25):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        for number in write(folder, newest):
            os.write(theirs, b"%d\\n" % number)
    os.close(theirs)
    with os.fdopen(ours) as reports:
        newest = int(reports.readline())
        time.sleep(random.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        newest = ([newest] + [int(line) for line in reports])[-1]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    back = load(folder, kind="test", version=3)
    assert newest <= back["number"] <= newest + 1, (newest, back["number"])
    assert back["words"] == [f"w{back['number']}"] * 200
    assert back["weights"].eq(float(back["number"])).all()
    newest = back["number"]
print("survived", newest)
"""


def test_kill_at_any_moment(tmp_path):
    """A writer is killed again and again; each time the folder loads, whole, and not older than what was reported."""
    words = [sys.executable, "-c", WRITER + KILLER, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("survived")) >= 25
    save(tmp_path, tree(0), **KIND)
    assert len(files(tmp_path)) == 2


def test_reading_while_another_process_saves(tmp_path):
    script = WRITER + "import sys\nfor number in write(sys.argv[1], 0): print(number, flush=True)"
    words = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        try:
            assert writer.stdout.readline() == "1\n"
            seen = set()
            while len(seen) < 10:
                back = load(tmp_path, **KIND)
                assert back["weights"].eq(float(back["number"])).all()
                seen.add(back["number"])
        finally:
            writer.kill()


def test_what_writes_itself_takes_the_place_of_the_old_file_at_the_end(tmp_path):
    path = tmp_path / "deep" / "clip.mp4"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".mp4"
            temporary.write_text(text)
            assert path.exists() == (text == "two")
        assert path.read_text() == text
        assert files(path.parent) == ["clip.mp4"]
    (path.parent / ".clip.tmp.mp4").symlink_to(tmp_path / "elsewhere")  # put there by someone
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        (temporary.with_suffix(".none")).read_text()
    assert path.read_text() == "two"
    assert files(path.parent) == ["clip.mp4"]
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_written_is_known_before_the_block(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "clip.mp4", tmp_path / f"{'x' * 300}.mp4"):
        with pytest.raises(InputError, match="cannot be written"), replacing(path):
            pytest.fail("the block ran")
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=r"taken: cannot be written \(Is a directory\)"), replacing(tmp_path / "taken"):
        pass
    assert files(tmp_path) == ["file", "taken"]
