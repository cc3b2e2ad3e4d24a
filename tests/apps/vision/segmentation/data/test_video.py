"""Videos: what is read is what was written, and what is wrong with a file is said before it is taken."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import core
from apps.vision.segmentation.data.video import is_video, read_clip, read_frames, writing
from core.errors import InputError

ROOT = Path(core.__file__).parents[1]


def write_video(path, count=8, size=(48, 64), rate=12.5, code="mp4v"):
    """Grey frames that get lighter by 20, with a red square that moves to the right."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), rate, (size[1], size[0]))
    assert writer.isOpened()
    for number in range(count):
        frame = np.full((*size, 3), 20 * number % 256, dtype=np.uint8)
        frame[8:24, 4 * number : 4 * number + 16] = (0, 0, 255)
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize(("name", "code"), [("clip.mp4", "mp4v"), ("12:30 clip.AVI", "MJPG"), ("clip.mkv", "mp4v")])
def test_frames_come_in_order_in_red_green_blue(tmp_path, name, code):
    assert is_video(tmp_path / name)
    clip = read_clip(write_video(tmp_path / name, code=code))
    assert (clip.size, clip.frames) == ((48, 64), 8)
    assert clip.rate == pytest.approx(12.5)
    frames = list(read_frames(clip))
    assert len(frames) == 8
    for number, frame in enumerate(frames):
        assert np.abs(frame[36:, 40:].astype(int) - 20 * number).max() < 12
        red, green, blue = frame[12:20, 4 * number + 4 : 4 * number + 12].reshape(-1, 3).mean(0)
        assert red > 200
        assert max(green, blue) < 60


def test_frames_are_decoded_one_at_a_time(tmp_path):
    frames = read_frames(read_clip(write_video(tmp_path / "clip.mp4")))
    first = next(frames)
    held = first.copy()
    next(frames)
    assert np.array_equal(first, held)  # a frame is not written over by the next
    frames.close()


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "deep" / "out.mp4"
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (48, 1, 3))
    with writing(path, (48, 64), 29.97) as write:
        for number in range(5):
            write(ramp + 10 * number)
        assert not path.exists()
    clip = read_clip(path)
    assert (clip.size, clip.frames) == ((48, 64), 5)
    assert clip.rate == pytest.approx(29.97, abs=0.01)
    for number, frame in enumerate(read_frames(clip)):
        assert np.abs(frame.astype(int) - (ramp + 10 * number)).mean() < 4
    assert [each.name for each in path.parent.iterdir()] == ["out.mp4"]


def write_frames(path, sizes, then=lambda: None):
    with writing(path, (48, 64), 10.0) as write:
        for size in sizes:
            write(np.zeros((*size, 3), dtype=np.uint8))
        then()


def test_what_is_cut_short_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_frames(path, [(48, 64)], then=lambda: 1 / 0)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_that_did_not_reach_the_disk_are_missed(tmp_path):
    """OpenCV drops a frame of another size without a word, as it does with one that finds the disk full."""
    with pytest.raises(InputError, match="not all of 2 frames could be written"):
        write_frames(tmp_path / "out.mp4", [(48, 64), (32, 64)])
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("apps.vision.segmentation.data.video.CODEC", "zzzz")
    with pytest.raises(InputError, match="OpenCV cannot write video"):
        write_frames(tmp_path / "out.mp4", [])
    assert not list(tmp_path.iterdir())


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nowhere.mp4", "there is no such file"),
        (lambda folder: (folder / "text.mp4", (folder / "text.mp4").write_text("no video " * 99))[0], "is no video"),
        (lambda folder: (folder / "void.mp4", (folder / "void.mp4").write_bytes(b""))[0], "is no video"),
        (lambda folder: cut(write_video(folder / "a.mp4"), 0.7), "is no video that OpenCV reads, or it is truncated"),
        (lambda folder: cut(write_video(folder / "a.avi", 20, code="MJPG"), 0.5), r"truncated or broken \(it holds"),
        (lambda folder: cut(write_video(folder / "a.mkv", 40, code="MJPG"), 0.5), r"truncated or broken \(it holds"),
        (lambda folder: write_video(folder / "none.avi", 0, code="MJPG"), "without a frame|is no video"),
    ],
    ids=["absent", "text", "empty", "mp4", "avi", "mkv", "no frame"],
)
def test_what_is_wrong_with_a_video_is_said_in_a_line(tmp_path, make, said):
    with pytest.raises(InputError, match=said) as caught:
        read_clip(make(tmp_path))
    assert "\n" not in str(caught.value)


CODE = """
import sys
from pathlib import Path
from apps.vision.segmentation.data.video import read_clip
from core.command import run
sys.exit(run(lambda words: read_clip(Path(words[0]))))
"""


def test_ffmpeg_does_not_speak_for_itself(tmp_path):
    """In a process of its own: FFmpeg asks once how loud it may be."""
    path = cut(write_video(tmp_path / "a.mp4"), 0.7)
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {path}: is no video that OpenCV reads")
    assert done.stderr.count("\n") == 1
