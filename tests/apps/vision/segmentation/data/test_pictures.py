from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.vision.segmentation.data.pictures import (
    ImageFile,
    read_header,
    read_image,
    read_last_channel,
    read_values,
)
from core.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
IDS = RNG.integers(0, 12, (5, 7), dtype=np.uint8)


def _saved(path, image, **options):
    image.save(path, **options)
    return path


def test_forms_that_become_rgb(tmp_path):
    grey = Image.fromarray(RGB).convert("L")
    assert np.array_equal(read_image(_saved(tmp_path / "a.png", Image.fromarray(RGB))), RGB)
    assert np.array_equal(read_image(_saved(tmp_path / "g.png", grey)), np.stack([np.asarray(grey)] * 3, -1))
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(read_image(_saved(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    opaque = Image.fromarray(np.dstack([RGB, np.full((5, 7), 255, np.uint8)]))
    assert np.array_equal(read_image(_saved(tmp_path / "o.png", opaque)), RGB)


def test_a_turned_photo_is_shown_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees clockwise
    path = _saved(tmp_path / "turned.png", Image.fromarray(RGB), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(RGB, -1))
    assert ImageFile(path).size == (7, 5) == read_image(path).shape[:2]
    assert read_header(path).size == (5, 7)


def _wide_png(path, channels=3):
    """A PNG of 16 bits a channel, written by hand; Pillow cannot."""
    values = RNG.integers(0, 1 << 16, (5, 7, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">IIBBBBB", 7, 5, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return values.astype(np.uint16)


def test_what_is_refused_and_why(tmp_path):
    _wide_png(tmp_path / "deep.png")
    _wide_png(tmp_path / "deepgrey.png", 1)
    clear = np.dstack([RGB, np.arange(35, dtype=np.uint8).reshape(5, 7)])
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "c.jpg")
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "f.tif")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    said = {
        "deep.png": "more than 8 bits",
        "deepgrey.png": "more than 8 bits",
        "c.jpg": "CMYK",
        "clear.png": "transparent",
        "f.tif": "more than 8 bits",
        "text.png": "is no image",
        "folder.png": "truncated or broken",
        "absent.png": "no such file",
    }
    for name, words in said.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files(tmp_path, suffix):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = _saved(tmp_path / f"whole.{suffix}", Image.fromarray(noise))
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read_header(cut).size == (64, 64)
    with pytest.raises(InputError, match="truncated or broken"):
        read_image(cut)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    for side in (8200, 60_000):
        path = tmp_path / f"{side}.png"
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        )
        with pytest.raises(InputError, match="million pixels"):
            read_image(path)


def test_labels_as_stored(tmp_path):
    assert np.array_equal(read_values(_saved(tmp_path / "i.png", Image.fromarray(IDS))), IDS)
    palette = Image.fromarray(IDS).convert("P")
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    assert np.array_equal(read_values(_saved(tmp_path / "p.png", palette)), IDS)
    assert np.array_equal(read_values(_saved(tmp_path / "c.png", Image.fromarray(RGB))), RGB)
    wide = IDS.astype(np.uint16) * 1000
    assert np.array_equal(read_values(_saved(tmp_path / "w.png", Image.fromarray(wide))), wide)
    bits = Image.fromarray((IDS > 5).astype(np.uint8) * 255).convert("1")
    assert np.array_equal(read_values(_saved(tmp_path / "b.png", bits)), IDS > 5)
    Image.fromarray(IDS).save(tmp_path / "l.jpg")
    with pytest.raises(InputError, match="cannot be JPEG"):
        read_values(tmp_path / "l.jpg")
    Image.fromarray(np.dstack([IDS, IDS])).save(tmp_path / "la.png")
    with pytest.raises(InputError, match="pixels are LA"):
        read_values(tmp_path / "la.png")
    _wide_png(tmp_path / "deep.png")
    with pytest.raises(InputError, match="16 bits a colour"):
        read_values(tmp_path / "deep.png")


def test_synthia_keeps_the_id_in_the_last_channel(tmp_path):
    pytest.importorskip("cv2")
    values = _wide_png(tmp_path / "s.png")  # red, green, blue; OpenCV's order ends with red
    assert np.array_equal(read_last_channel(tmp_path / "s.png"), values[..., 0])
    (tmp_path / "cut.png").write_bytes((tmp_path / "s.png").read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated"):
        read_last_channel(tmp_path / "cut.png")
    Image.fromarray(IDS).save(tmp_path / "i.png")
    with pytest.raises(InputError, match="three channels, as Synthia"):
        read_last_channel(tmp_path / "i.png")


def _bytes(form, image):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


_WHOLE = {form: _bytes(form, Image.fromarray(RGB)) for form in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about tags that are out of place
@settings(max_examples=250, deadline=None)
@given(data=st.data(), form=st.sampled_from(sorted(_WHOLE)), reader=st.sampled_from([read_image, read_values]))
def test_damaged_bytes_are_read_or_refused_in_one_line(data, form, reader, tmp_path_factory):
    whole = bytearray(_WHOLE[form])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(whole[:cut]) if data.draw(st.booleans()) else bytes(whole))
    with contextlib.suppress(InputError):
        assert reader(path).ndim in (2, 3)
