"""Which classes there are, and how the values in label files say them.

:class:`Classes` is what a network is trained for: train ids 0 to C-1, the same for source and target. A
:class:`LabelMap` belongs to the label files of one source and turns what they hold into train ids; :data:`IGNORE`
(255) stands for what is not labelled, whatever number the files have for it.

One rule for label files: **one channel holds ids** (a palette image too: its index is the id, its colours are for the
eye), **three channels hold colours**, which ``classes.json`` must name. An id or colour that the map does not have is
refused; nothing is guessed.

``classes.json``::

    {
        "classes": ["road", "sky", "car"],  # value 0 is road, 1 is sky, 2 is car
        "ignore_index": 255,  # a value, or a list of them, for "not labelled"; 255 is always one
        "palette": [[128, 64, 128], ...],  # colours, in the order of the classes; needed for labels of 3 channels
        "ignore_colours": [[0, 0, 0]],  # colours for "not labelled"
        "ids": {"7": "road", "23": "sky", "4": null},  # where values are not 0, 1, 2, ...; null is "not labelled"
        "reduce_zero_label": false,  # value 0 is "not labelled", 1 is the first class, ...
        "things": ["car"],
    }  # classes of countable objects (the feature distance looks at them)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray

from core.errors import InputError

IGNORE = 255
"""The train id of a pixel that is not labelled."""
MOST = 250
"""Classes that fit into a byte beside :data:`IGNORE`."""

Colour = tuple[int, int, int]
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_UNKNOWN = -1
_LEVELS = 24, 232
_DARK = 0.35
"""Lightness (of Oklab) below which colours look black beside brighter ones."""
_KEYS = ("classes", "ignore_index", "palette", "ignore_colours", "ids", "reduce_zero_label", "things", "size")


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a network.

    Attributes:
        names: by train id, distinct.
        palette: a colour for each, for pictures.
        things: train ids of countable objects.

    Raises:
        InputError: no class, too many, two of one name, or not one colour for each.

    >>> Classes(names=("road", "sky"), palette=((128, 64, 128), (70, 130, 180))).index("sky")
    1
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    things: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 1 < len(self.names) <= MOST:
            raise InputError(f"{len(self.names)} classes", where="classes", mend=f"give 2 to {MOST}")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise InputError(f"the class {repeated[0]!r} is there twice", where="classes", mend="name each once")
        if len(self.palette) != len(self.names):
            raise InputError(f"{len(self.palette)} colours for {len(self.names)} classes", where="palette")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The train id of a class."""
        return self.names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which :meth:`from_dict` reads."""
        palette = [list(colour) for colour in self.palette]
        return {"names": list(self.names), "palette": palette, "things": sorted(self.things)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Classes:
        """From what :meth:`to_dict` gave."""
        palette = tuple(_colour(colour, "palette") for colour in data["palette"])
        return cls(names=tuple(data["names"]), palette=palette, things=frozenset(data["things"]))


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """How the label files of one source say the classes.

    Attributes:
        ids: value of a one-channel file -> train id or :data:`IGNORE`.
        colours: colour of a three-channel file -> the same.
        last_channel: the id is the last channel (of OpenCV's order) of a 16-bit PNG, as in Synthia.
    """

    ids: Mapping[int, int]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    last_channel: bool = False

    def translated(self, train_ids: Mapping[int, int]) -> LabelMap:
        """The map into other train ids; what ``train_ids`` lacks is ignored."""

        def to(train_id: int) -> int:
            return train_ids.get(train_id, IGNORE)

        ids = {value: to(train_id) for value, train_id in self.ids.items()}
        return replace(self, ids=ids, colours={colour: to(train_id) for colour, train_id in self.colours.items()})

    def decode(self, values: NDArray[Any], where: str) -> UInt8[np.ndarray, "H W"]:
        """Train ids of a label image.

        Args:
            values: ``(H, W)`` ids, or ``(H, W, 3)`` colours.
            where: the file, for errors.

        Raises:
            InputError: values that the map does not have, all of them named.
        """
        if values.ndim == 3:
            return self._from_colours(values, where)
        if values.dtype == np.uint8:
            return self._looked_up(values, np.arange(256), values, where)
        found, places = np.unique(values, return_inverse=True)
        return self._looked_up(values, found, places.reshape(values.shape), where)

    def _looked_up(
        self, values: NDArray[Any], rows: NDArray[Any], places: NDArray[Any], where: str
    ) -> UInt8[np.ndarray, "H W"]:
        table = np.array([self.ids.get(int(value), _UNKNOWN) for value in rows], dtype=np.int16)
        known = table[places]
        if known.size and known.min() < 0:
            self._refuse(np.unique(values[known < 0]), where)
        decoded: NDArray[np.uint8] = known.astype(np.uint8)
        return decoded

    def _refuse(self, unknown: NDArray[Any], where: str) -> None:
        listed = ", ".join(str(value) for value in unknown[:8].tolist()) + (", …" if len(unknown) > 8 else "")
        mend = "list them in classes.json, as a class or as ignore_index"
        if unknown.tolist() == [255] or set(unknown.tolist()) <= {0, 255}:
            mend = "is it a mask of 0 and 255? then write ids (0, 1) or say so in classes.json with ids"
        what = f"ids that no class has: {listed}" if len(unknown) > 1 else f"an id that no class has: {listed}"
        raise InputError(what, where=where, mend=mend)

    def _from_colours(self, values: NDArray[Any], where: str) -> UInt8[np.ndarray, "H W"]:
        if not self.colours:
            mend = "give its palette in classes.json, or save ids in one channel"
            raise InputError(
                "the label has three channels, and no palette says what its colours mean", where=where, mend=mend
            )
        codes = (values.astype(np.int32) * np.array([1 << 16, 1 << 8, 1], dtype=np.int32)).sum(-1, dtype=np.int32)
        found, places = np.unique(codes, return_inverse=True)
        table = {r << 16 | g << 8 | b: train_id for (r, g, b), train_id in self.colours.items()}
        unknown = [int(code) for code in found if int(code) not in table]
        if unknown:
            named = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in unknown[:4])
            what = f"{len(unknown)} colours that the palette lacks: {named}{', …' if len(unknown) > 4 else ''}"
            mend = "correct the palette, or list them as ignore_colours; labels must not be JPEG or resized smoothly"
            raise InputError(what, where=where, mend=mend)
        decoded: NDArray[np.uint8] = np.array([table[int(code)] for code in found], dtype=np.uint8)[places]
        shaped: NDArray[np.uint8] = decoded.reshape(codes.shape)
        return shaped


def colours_for(count: int) -> tuple[Colour, ...]:
    """Distinct colours where a source names none: each is as far as can be from those before it, from white and black.

    Distances are Euclidean in Oklab (Ottosson, "A perceptual color space for image processing", 2020), where equal ones
    look about equal. The first colours are the same for any number of classes.

    >>> len(set(colours_for(40))), colours_for(40)[:7] == colours_for(7)
    (40, True)
    """
    return _all_colours()[:count]


@cache
def _all_colours() -> tuple[Colour, ...]:
    """For as many classes as there can be, of a grid of colours."""
    levels = np.linspace(*_LEVELS, 9).round()  # of screens, less their glaring ends
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[oklab(grid)[:, 0] > _DARK]
    seen = oklab(grid)
    nearest = np.minimum(*(np.linalg.norm(seen - oklab(np.full(3, end)), axis=1) for end in (0.0, 255.0)))
    chosen: list[Colour] = []
    for _ in range(MOST):
        place = int(nearest.argmax())
        red, green, blue = grid[place].astype(int).tolist()
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, np.linalg.norm(seen - seen[place], axis=1))
    return tuple(chosen)


def oklab(colours: Float64[np.ndarray, "*N 3"]) -> Float64[np.ndarray, "*N 3"]:
    """Red, green and blue of sRGB, 0 to 255, as lightness and two opponent colours.

    >>> oklab(np.array([255.0, 255.0, 255.0])).round(3).tolist()[0]
    1.0
    """
    share = colours / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    found: Float64[np.ndarray, "*N 3"] = np.cbrt(linear @ _CONES.T) @ _OPPONENTS.T
    return found


def read_classes(path: Path) -> tuple[Classes, LabelMap]:
    """``classes.json``, as the module describes it.

    Raises:
        InputError: the file is absent or not of that form; in one line, with the key at fault.
    """
    where = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=where, mend='write {"classes": ["road", …]} there') from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", where=where) from error
    return classes_from(data, where)


def classes_from(data: Any, where: str) -> tuple[Classes, LabelMap]:
    """What the content of a ``classes.json`` says; see the module.

    Raises:
        InputError: as for :func:`read_classes`.

    >>> classes, labels = classes_from({"classes": ["road", "sky"], "ignore_index": 11}, "classes.json")
    >>> labels.decode(np.array([[1, 11]], dtype=np.uint8), "a.png").tolist()
    [[1, 255]]
    """
    if not isinstance(data, dict) or not _is_list(data.get("classes"), str):
        raise InputError("has no list of names under 'classes'", where=where, mend='write {"classes": ["road", …]}')
    unknown = [key for key in data if key not in _KEYS]
    if unknown:
        raise InputError(f"the key {unknown[0]!r} means nothing here", where=where, mend=f"known: {', '.join(_KEYS)}")
    names = tuple(data["classes"])
    palette = data.get("palette")
    if palette is not None and not isinstance(palette, list):
        raise InputError("'palette' is no list of colours", where=where)
    colours = None if palette is None else tuple(_colour(colour, where) for colour in palette)
    try:
        things = frozenset(_place(names, name) for name in _listed(data, "things", where))
        classes = Classes(names=names, palette=colours or colours_for(len(names)), things=things)
    except InputError as error:
        raise InputError(error.what, where=where, mend=error.mend) from error
    coded = {} if colours is None else {colour: index for index, colour in enumerate(colours)}
    if len(coded) < len(colours or ()):
        raise InputError("two classes have one colour", where=where, mend="give each class its own")
    for colour in _listed(data, "ignore_colours", where):
        coded[_colour(colour, where)] = IGNORE
    return classes, LabelMap(ids=_ids(data, names, where), colours=coded)


def _ids(data: Mapping[str, Any], names: Sequence[str], where: str) -> dict[int, int]:
    given, reduce = data.get("ids"), data.get("reduce_zero_label", False)
    if given is None:
        ids = {index + bool(reduce): index for index in range(len(names))}
    elif isinstance(given, dict):
        ids = {_value(value, where): IGNORE if n is None else _place(names, n, where) for value, n in given.items()}
    else:
        raise InputError("'ids' is no table of values and names", where=where)
    ignored = data.get("ignore_index", [])
    for value in [255, *([0] if reduce else []), *(ignored if isinstance(ignored, list) else [ignored])]:
        number = _value(value, where)
        if ids.get(number, IGNORE) != IGNORE and (given is None or number != 255):
            what = f"value {number} is both the class {names[ids[number]]!r} and 'not labelled'"
            raise InputError(what, where=where, mend="correct ignore_index, or give ids")
        ids.setdefault(number, IGNORE)
    return ids


def _value(value: Any, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{value!r} is no value of a label", where=where) from error
    if isinstance(value, bool) or not -(2**31) <= number < 2**31 or number != float(value):
        raise InputError(f"{value!r} is no value of a label", where=where)
    return number


def _place(names: Sequence[str], name: Any, where: str | None = None) -> int:
    if name not in names:
        raise InputError(f"{name!r} is no class", where=where, mend=f"classes: {', '.join(names)}")
    return names.index(name)


def _colour(colour: Any, where: str) -> Colour:
    if not _is_list(colour, int) or len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
        raise InputError(f"{colour!r} is no colour", where=where, mend="write [red, green, blue], each 0 to 255")
    return colour[0], colour[1], colour[2]


def _listed(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise InputError(f"{key!r} is no list", where=where)
    return value


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(one, kind) and not isinstance(one, bool) for one in value
    )
