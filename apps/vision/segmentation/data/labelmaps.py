"""The label maps of the public driving sets: 19 classes of Cityscapes, and the numbers that each set has for them.

The ids are facts of the data sets: Cityscapes (Cordts et al., 2016) and GTA5 (Richter et al., 2016) share raw ids;
Synthia RAND-CITYSCAPES (Ros et al., 2016) has ids of its own and never shows terrain, truck and train as such;
ACDC and Dark Zurich (Sakaridis et al.) have labels in Cityscapes' train ids.
"""

from __future__ import annotations

from apps.vision.segmentation.data.classes import IGNORE, Classes, LabelMap

_NAMES = (
    "road sidewalk building wall fence pole light sign vegetation terrain sky person rider car truck bus train "
    "motorcycle bicycle"
)
_COLOURS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)

CITYSCAPES = Classes(
    names=tuple(_NAMES.split()), palette=_COLOURS, things=frozenset({6, 7, 11, 12, 13, 14, 15, 16, 17, 18})
)
"""The 19 classes, with the things of DAFormer's feature distance."""

_RAW = {
    7: 0,
    8: 1,
    11: 2,
    12: 3,
    13: 4,
    17: 5,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    31: 16,
    32: 17,
    33: 18,
}
_SYNTHIA = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15}
_SYNTHIA |= {20: 16, 12: 17, 11: 18}

TRAIN_IDS = LabelMap(ids={**{index: index for index in range(19)}, 255: IGNORE})
"""Files that hold train ids: Cityscapes' ``_labelTrainIds``, ACDC, Dark Zurich."""
LABEL_IDS = LabelMap(ids={**{value: _RAW.get(value, IGNORE) for value in range(35)}, 255: IGNORE})
"""Files that hold raw ids: Cityscapes' ``_labelIds``, GTA5."""
SYNTHIA = LabelMap(ids={**{value: _SYNTHIA.get(value, IGNORE) for value in range(23)}, 255: IGNORE}, last_channel=True)
"""Synthia's ids, in the last channel of a 16-bit PNG."""
