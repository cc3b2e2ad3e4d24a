from __future__ import annotations

import numpy as np
import pytest

from apps.vision.segmentation.data.canvas import Camera, Canvas
from apps.vision.segmentation.data.gap import gap_between
from apps.vision.segmentation.data.look import look_at
from apps.vision.segmentation.data.scenery import CLASSES
from apps.vision.segmentation.data.streets import FRAMES, SIZE, draw_frame, street_domain
from core.errors import InputError


def test_a_frame_is_a_function_of_seed_domain_and_number():
    image, label = draw_frame("dusk", 11, 3)
    draw_frame.cache_clear()
    draw_frame("dusk", 10, 3)
    again, relabelled = draw_frame("dusk", 11, 3)
    assert np.array_equal(image, again)
    assert np.array_equal(label, relabelled)
    assert (image.shape, label.shape) == ((*SIZE, 3), SIZE)
    others = [draw_frame("dusk", 12, 3), draw_frame("dusk", 11, 4), draw_frame("day", 11, 3)]
    assert not any(np.array_equal(image, other) for other, _ in others)
    assert not image.flags.writeable


def test_splits_share_no_sequence_and_domains_no_street():
    domains = {name: street_domain(name) for name in ("day", "dusk")}
    for domain in domains.values():
        groups = [{item.group for item in items} for items in domain.splits.values()]
        assert len(set.union(*groups)) == sum(map(len, groups))
        assert domain.synthetic
        assert len({item.key for items in domain.splits.values() for item in items}) == 36 * FRAMES
    digests = [item.image.digest() for domain in domains.values() for items in domain.splits.values() for item in items]
    assert len(set(digests)) == len(digests)
    with pytest.raises(InputError, match="no domain 'night'"):
        street_domain("night")


def test_class_shares_and_the_gap_are_those_of_a_street():
    looks = {
        name: [look_at(item, "train", len(CLASSES)) for item in street_domain(name).splits["train"][::8]]
        for name in ("day", "dusk")
    }
    gap = gap_between(looks["day"], looks["dusk"], CLASSES)
    assert gap is not None
    for side in (gap.source, gap.target):
        shares = dict(zip(CLASSES.names, side.shares, strict=True))
        assert 0.25 < shares["road"] < 0.5
        assert 0.2 < shares["building"] < 0.4
        assert all(0.003 < shares[name] < 0.02 for name in ("person", "sign", "pole"))
    assert gap.source.luminance > 1.8 * gap.target.luminance
    assert 30 < gap.light < 100
    assert gap.scene < 0.15


def test_the_frames_of_a_sequence_come_nearer():
    """One street: the sky and the houses stay, what is far grows."""
    _, first = draw_frame("day", 0)
    for frame in range(1, FRAMES):
        _, other = draw_frame("day", frame)
        assert 0.6 < (first == other).mean() < 1.0
    assert (first == draw_frame("day", FRAMES)[1]).mean() < (first == draw_frame("day", 1)[1]).mean()


def test_the_camera_projects_as_a_pinhole():
    camera = Camera(1.5, 90.0, 0.5, 0.0, (100, 200))
    assert camera.focal == pytest.approx(100)
    assert camera.column(1.0, 10.0) == pytest.approx(110)
    assert camera.row(0.0, 10.0) == pytest.approx(50 + 15)
    first, x, z = camera.ground
    assert z[65 - first, 0] == pytest.approx(150 / 15.5)
    assert x[65 - first, 110] == pytest.approx(10.5 / 100 * 150 / 15.5)


def test_strokes_cover_what_the_projection_says():
    canvas = Canvas.blank(Camera(1.5, 90.0, 0.5, 0.0, (100, 200)), 7)
    canvas.slab(0.0, 10.0, (0.0, 2.0), (1.0, 1.0), (0.5, 0.5, 0.5), 3)
    rows, columns = np.nonzero(canvas.label == 3)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 64, 90, 109)
    assert (canvas.depth[canvas.label == 3] == 10.0).all()
    canvas.slab(0.0, 5.0, (-90.0, 90.0), (90.0, 90.0), (0.1, 0.1, 0.1), 4)
    assert (canvas.label == 4).all()
    canvas.slab(50.0, 5.0, (0.0, 1.0), (1.0, 0.5), (0.1, 0.1, 0.1), 5)
    assert (canvas.label == 4).all()
