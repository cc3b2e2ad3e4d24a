"""A tree of values as JSON, with its tensors set aside by name.

JSON has one kind of sequence, text keys only and no nan; what it lacks is written as an object with a single sign:

===============  ==========================================================
value            in JSON
===============  ==========================================================
tuple            ``{"$tuple": [...]}``
dict             an object; ``{"$dict": [[key, value], ...]}`` where a key is an int or starts with ``$``
nan, inf, -inf   ``{"$float": "nan"}``
tensor           ``{"$tensor": name, "dtype": "float32", "shape": [2, 3]}``
numpy array      ``{"$array": name, "dtype": ..., "shape": ...}``; comes back as a numpy array
===============  ==========================================================

Finite floats are exact: Python writes the shortest text that reads back to the same bits. Subclasses come back as the
plain type: ``OrderedDict`` as dict, numpy scalars as Python numbers, parameters as tensors without gradients, all
tensors on the CPU. Reading builds only these types, and bounds the depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import InputError

#: Nested dict / list / tuple; leaves are tensors, numpy arrays, str, int, float, bool and None; keys are str or int.
Tree: TypeAlias = Any

MAX_DEPTH = 64
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Flattener:
    """Turns a tree into JSON values; ``tensors`` collects name -> tensor. Tied tensors are stored once.

    A type that cannot be saved is a mistake of the program, not of its user: a TypeError that names the place.

    >>> flat = Flattener()
    >>> flat.flatten({"bias": torch.zeros(2), "steps": (1, 2)})
    {'bias': {'$tensor': 'bias', 'dtype': 'float32', 'shape': [2]}, 'steps': {'$tuple': [1, 2]}}
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def flatten(self, tree: Tree, path: tuple[str, ...] = ()) -> Any:
        """The JSON value of ``tree``, which stands at ``path``."""
        if len(path) > MAX_DEPTH:
            raise ValueError(f"{_spell(path)[:80]}...: nested more than {MAX_DEPTH} levels deep")
        if isinstance(tree, np.generic) and tree.dtype.kind in "biufU":
            tree = tree.item()
        if tree is None or isinstance(tree, bool):
            return tree
        if isinstance(tree, int):
            return int(tree)
        if isinstance(tree, str):
            return str.__str__(tree)
        if isinstance(tree, float):
            return float(tree) if math.isfinite(tree) else {"$float": repr(float(tree))}
        if isinstance(tree, tuple):
            return {"$tuple": [self.flatten(value, (*path, str(i))) for i, value in enumerate(tree)]}
        if isinstance(tree, list):
            return [self.flatten(value, (*path, str(i))) for i, value in enumerate(tree)]
        if isinstance(tree, Mapping):
            return self._mapping(tree, path)
        if isinstance(tree, Tensor):
            return self._tensor("$tensor", tree, path)
        if isinstance(tree, np.ndarray):
            return self._tensor("$array", _from_numpy(tree, path), path)
        raise TypeError(f"{_spell(path)}: {type(tree).__name__} cannot be saved")

    def _mapping(self, mapping: Mapping[Any, Any], path: tuple[str, ...]) -> Any:
        items = []
        for key, value in mapping.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TypeError(f"{_spell(path)}: a key is {type(key).__name__}; keys are str or int")
            plain = str.__str__(key) if isinstance(key, str) else int(key)
            items.append((plain, self.flatten(value, (*path, str(plain)))))
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [list(item) for item in items]}

    def _tensor(self, sign: str, tensor: Tensor, path: tuple[str, ...]) -> Any:
        if tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
            raise TypeError(f"{_spell(path)}: only dense tensors that hold data can be saved")
        # Empty tensors have no address: each is its own.
        place = tensor.data_ptr() or id(tensor)
        identity = (
            place,
            tensor.device,
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.is_conj(),
            tensor.is_neg(),
        )
        if identity not in self._names:
            self._names[identity] = name = self._fresh(path)
            self.tensors[name] = tensor.detach()
        return {sign: self._names[identity], "dtype": _dtype(tensor), "shape": list(tensor.shape)}

    def _fresh(self, path: tuple[str, ...]) -> str:
        """A name for the tensor at ``path`` that no other has: keys may hold slashes, or text that is not Unicode."""
        base = name = _spell(path).encode("utf-8", "backslashreplace").decode()
        count = 1
        while name in self.tensors or name == "__metadata__":
            count += 1
            name = f"{base}~{count}"
        return name


def unflatten(value: Any, tensors: Mapping[str, Tensor], where: str) -> Tree:
    """The tree that ``Flattener`` turned into ``value`` and ``tensors``; tied tensors come back as one object.

    Raises:
        InputError: the JSON is not what ``Flattener`` writes, or disagrees with the tensors.

    >>> unflatten({"$tuple": [1, {"$float": "-inf"}]}, {}, "example.json")
    (1, -inf)
    """
    return _Reader(tensors, where).read(value, ())


class _Reader:
    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self._tensors, self._where = tensors, where
        self._arrays: dict[str, NDArray[Any]] = {}
        self._signs: dict[str, Callable[[Any, tuple[str, ...]], Any]] = {
            "$tuple": self._tuple,
            "$dict": self._dict,
            "$float": self._float,
            "$tensor": self._named,
            "$array": self._array,
        }

    def read(self, value: Any, path: tuple[str, ...]) -> Tree:
        if len(path) > MAX_DEPTH:
            raise self._refuse(path[:3], f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, list):
            return [self.read(item, (*path, str(i))) for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        sign = next(iter(value), "")
        if not any(key.startswith("$") for key in value):
            return {key: self.read(item, (*path, key)) for key, item in value.items()}
        if sign not in self._signs:
            raise self._refuse(path, f"unknown sign {sign!r}")
        if sign in ("$tensor", "$array"):
            if list(value) != [sign, "dtype", "shape"]:
                raise self._refuse(path, "a tensor is described by its name, dtype and shape")
            return self._signs[sign](value, path)
        if len(value) != 1:
            raise self._refuse(path, f"{sign!r} stands with other keys")
        return self._signs[sign](value[sign], path)

    def _tuple(self, items: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(items, list):
            raise self._refuse(path, "a tuple is written as a list")
        return tuple(self.read(items, path))

    def _dict(self, items: Any, path: tuple[str, ...]) -> Any:
        tree: dict[str | int, Tree] = {}
        for item in items if isinstance(items, list) else [None]:
            if not (isinstance(item, list) and len(item) == 2 and type(item[0]) in (str, int)) or item[0] in tree:
                raise self._refuse(path, "a dict is written as a list of distinct [key, value] pairs")
            tree[item[0]] = self.read(item[1], (*path, str(item[0])))
        return tree

    def _float(self, text: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(text, str) or text not in _FLOATS:
            raise self._refuse(path, f"{text!r} is not one of nan, inf, -inf")
        return _FLOATS[text]

    def _named(self, value: dict[str, Any], path: tuple[str, ...]) -> Tensor:
        name = next(iter(value.values()))
        tensor = self._tensors.get(name) if isinstance(name, str) else None
        if tensor is None:
            raise self._refuse(path, f"there is no tensor {name!r}")
        if (value["dtype"], value["shape"]) != (_dtype(tensor), list(tensor.shape)):
            found = f"{_dtype(tensor)} {list(tensor.shape)}"
            raise self._refuse(path, f"is {value['dtype']} {value['shape']} here but {found} in the tensor file")
        return tensor

    def _array(self, value: dict[str, Any], path: tuple[str, ...]) -> Any:
        tensor = self._named(value, path)
        try:
            return self._arrays.setdefault(value["$array"], tensor.numpy())
        except TypeError as error:
            raise self._refuse(path, f"numpy has no {_dtype(tensor)}") from error

    def _refuse(self, path: tuple[str, ...], what: str) -> InputError:
        return InputError(f"{_spell(path)}: {what}", where=self._where, mend="the artefact is damaged")


def _from_numpy(array: NDArray[Any], path: tuple[str, ...]) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{_spell(path)}: an array of {array.dtype} cannot be saved; make it a list")
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    if not native.flags.writeable or not native.flags.c_contiguous:
        native = native.copy(order="C")
    return torch.from_numpy(native)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _spell(path: tuple[str, ...]) -> str:
    return "/".join(path) or "tree"
