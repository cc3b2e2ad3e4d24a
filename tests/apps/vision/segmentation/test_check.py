"""Every kind of fault, planted in a sound set, is one finding with its place."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from apps.vision.segmentation import check
from apps.vision.segmentation.check import check as look
from apps.vision.segmentation.data.findings import inspect
from apps.vision.segmentation.data.sources import Source, open_domains


def _source(folder):
    return Source(data=str(folder), source_domain="day", target_domain="dusk")


def _found(folder, kind):
    return [one for one in look(_source(folder)).findings if one.kind == kind]


def _only(folder, kind):
    found = _found(folder, kind)
    assert len(found) == 1, [str(one) for one in look(_source(folder)).findings]
    assert "\n" not in str(found[0])
    return found[0]


def test_a_sound_set(two_domains):
    result = look(_source(two_domains))
    assert result.ok
    assert {one.kind for one in result.findings} == {"few"}
    assert result.gap.source.shares.tolist() == pytest.approx([1 / 3] * 3)
    # The training images of the target have no labels; those of its test stand in.
    assert result.gap.target.shares.tolist() == pytest.approx([0, 0.5, 0.5])
    assert result.gap.target.images == 4
    assert result.facts()["images"]["target"] == {
        "train": {"images": 2, "labelled": 0},
        "test": {"images": 2, "labelled": 2},
    }


def test_faults_of_single_images(two_domains):
    images = two_domains / "images"
    pixels = np.zeros((72, 96, 3), dtype=np.uint8)
    whole = (images / "aa-s.png").read_bytes()
    (images / "aa-s.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(pixels).convert("CMYK").save(images / "ba-s.png", format="JPEG")
    head = struct.pack(">IIBBBBB", 96, 72, 16, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(96 * 6) for _ in range(72)))
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (images / "ca-s.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(images / "da-s.png", exif=exif)
    for kind, name, said in (
        ("unreadable", "aa-s", "truncated"),
        ("cmyk", "ba-s", "CMYK"),
        ("16-bit", "ca-s", "more than 8 bits"),
        ("turned", "da-s", "orientation 3"),
    ):
        one = _only(two_domains, kind)
        assert one.where == str(images / f"{name}.png")
        assert said in one.what
        assert one.split == "source train"
        assert one.severity == ("warning" if kind == "turned" else "error")


def test_faults_of_single_labels(two_domains, stripes):
    labels = two_domains / "labels"
    Image.fromarray(stripes(0, 1, size=(36, 48))).save(labels / "aa-s.png")
    Image.fromarray(stripes(0, 1, 7)).save(labels / "ba-s.png")
    Image.fromarray(stripes(255)).save(labels / "ca-s.png")
    (labels / "da-s.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((72, 96, 3), dtype=np.uint8)).save(labels / "ea-s.png")
    for kind, name, said in (
        ("size", "aa-s", "the label is 48 x 36, its image 96 x 72"),
        ("ids", "ba-s", "an id that no class has: 7"),
        ("unreadable-label", "da-s", "is no image, or its beginning is broken"),
        ("colours", "ea-s", "the label has three channels, and no palette says what its colours mean"),
    ):
        one = _only(two_domains, kind)
        assert (one.where, one.what, one.severity) == (str(labels / f"{name}.png"), said, "error")
    assert _only(two_domains, "unlabelled").where == str(labels / "ca-s.png")
    assert not look(_source(two_domains)).ok


def test_masks_of_0_and_255(write_set, stripes, tmp_path):
    items = [(f"{letter}{letter}", "day", "train", stripes(0, 255)) for letter in "abcd"]
    path = write_set(tmp_path / "s", [*items, ("tt", "dusk", "train", None)])
    one = _only(path, "mask-0-255")
    assert one.severity == "error"
    assert '"255": "object"' in one.mend
    ids = {"0": "road", "255": "car"}
    write_set(tmp_path / "s", [*items, ("tt", "dusk", "train", None)], ids=ids)
    assert not _found(path, "mask-0-255")


@pytest.mark.parametrize(
    ("values", "severity", "said"), [((1, 2, 3), "error", "ids reach 3"), ((1, 2), "warning", "no label holds 0")]
)
def test_ids_that_begin_at_1(write_set, stripes, tmp_path, values, severity, said):
    items = [("aa", "day", "train", stripes(*values)), ("tt", "dusk", "train", None)]
    one = _only(write_set(tmp_path / "s", items), "reduce-zero")
    assert one.severity == severity
    assert said in one.what
    assert "reduce_zero_label" in one.mend
    write_set(tmp_path / "s", items, reduce_zero_label=True)
    assert not _found(tmp_path / "s", "reduce-zero")


def test_a_palette_in_another_order(write_set, stripes, tmp_path):
    palette = [[9, 9, 9], [8, 8, 8], [7, 7, 7]]
    items = [("aa", "day", "train", stripes(0, 1, 2)), ("tt", "dusk", "train", None)]
    path = write_set(tmp_path / "s", items, palette=palette)
    label = Image.fromarray(stripes(0, 1, 2)).convert("P")
    for colours, kinds in ((palette, 0), ([palette[1], palette[0], palette[2]], 1)):
        label.putpalette([part for colour in colours for part in colour])
        label.save(path / "labels" / "aa.png")
        found = _found(path, "palette-order")
        assert len(found) == kinds
    assert found[0].what == "id 0 is 'road' in classes.json, and coloured as 'sky'"


def test_classes_that_one_side_lacks(write_set, stripes, tmp_path):
    items = [
        ("aa", "day", "train", stripes(0, 1)),
        ("tt", "dusk", "train", None),
        ("ue", "dusk", "test", stripes(0, 2)),
    ]
    path = write_set(tmp_path / "s", items, ("road", "sky", "car", "boat"))
    assert _only(path, "target-only").what.startswith("'car' is in the target (50.00% of it)")
    assert _only(path, "absent").what.startswith("no label of the source has 'boat'")
    few = stripes(0, 1)
    few[:3, 0] = 2
    few[0, 1] = 3
    Image.fromarray(few).save(path / "labels" / "aa.png")
    assert {one.what.split(":")[0] for one in _found(path, "too-rare")} == {
        "no image has more than 3 pixels of 'car'",
        "no image has more than 1 pixels of 'boat'",
    }


def test_what_splits_share(two_domains):
    images = two_domains / "images"
    (images / "gv-s.png").write_bytes((images / "aa-s.png").read_bytes())
    one = _only(two_domains, "shared-file")
    assert (one.where, one.split) == (str(images / "gv-s.png"), "source valid")
    (images / "at-t.png").write_bytes((images / "ba-s.png").read_bytes())
    assert {one.split for one in _found(two_domains, "shared-file")} == {"source valid", "target train"}
    table = two_domains / "splits.csv"
    table.write_text(table.read_text().replace("gv-s,day,gv", "gv-s,day,aa"))
    assert "1 sequence is in train too (aa)" in _only(two_domains, "shared-sequence").what


def test_sizes_of_sets(write_set, stripes, tmp_path):
    path = write_set(tmp_path / "s", [("aa", "day", "train", stripes(0, 1, 2, size=(20, 96)))], size=(20, 96))
    (tmp_path / "t" / "images").mkdir(parents=True)
    source = Source(data=str(path), target=str(tmp_path / "t"))
    kinds = {one.kind: one for one in look(source).findings}
    assert kinds["no-target"].severity == "error"
    assert kinds["tiny"].what == "only 96 x 20 pixels"
    assert {"few", "not-scored"} <= set(kinds)
    unlabelled = write_set(tmp_path / "u", [("aa", "day", "train", None), ("tt", "dusk", "train", None)])
    assert _only(unlabelled, "no-source").severity == "error"


def test_source_and_target_may_be_the_same_for_an_upper_reference(two_domains):
    result = look(Source(data=str(two_domains), source_domain="day", target_domain="day"))
    assert [one.severity for one in result.findings if one.kind == "same-domain"] == ["note"]
    assert result.gap.light == 0
    assert "hardly differs" in result.gap.head_room()


def test_the_verb_prints_lines_or_json(two_domains, capsys):
    words = ["--data", str(two_domains), "--source-domain", "day", "--target-domain", "dusk"]
    assert check.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["road", "33.33", "%", "0.00", "%"] for line in lines)
    assert lines[-1] == "0 errors, 1 warning, 0 notes"
    assert check.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gap"]["source"]["class_shares"]["sky"] == pytest.approx(1 / 3)
    assert check.main(["--data", str(two_domains / "none"), "--target", "x", "--json"]) == 2
    assert "no such folder" in capsys.readouterr().out


def test_progress_counts_every_image(two_domains):
    told = []
    inspect(*open_domains(_source(two_domains)), progress=lambda done, of: told.append((done, of)))
    assert told == [(index, 12) for index in range(1, 13)]


def test_a_sample_of_a_large_set_says_that_it_is_one(two_domains, capsys):
    result = look(_source(two_domains), most=3)
    assert [one.what[:9] for one in result.findings if one.kind == "sampled"] == ["3 of 6 im"]
    assert result.gap.source.images == 3
    assert check.main(["--most", "0"]) == 2
    assert "--most: 0 is not a number of images" in capsys.readouterr().err
