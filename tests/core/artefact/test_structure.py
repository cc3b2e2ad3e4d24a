import collections
import enum
import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.artefact import load, save
from core.artefact.structure import MAX_DEPTH, Flattener, unflatten
from core.errors import InputError

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def there_and_back(tree, folder):
    save(folder, tree, kind="test", version=1)
    return load(folder, kind="test", version=1)


def same(a, b):
    """Equal in type and bits, nan included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["", "$tuple", "\ud800", "\u2028", "nan"])
)
keys = st.text(max_size=4) | st.sampled_from(["$dict", "$", "a/b"]) | st.integers()
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["$dict", "$", "a/b"]) | st.integers(), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(trees)
def test_values_come_back_exactly(tree):
    text = json.dumps(Flattener().flatten(tree), allow_nan=False)
    assert same(unflatten(json.loads(text), {}, "here"), tree)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7, 5)], ids=str)
def test_tensors_keep_every_bit(dtype, shape, tmp_path):
    count = math.prod(shape) * dtype.itemsize
    raw = torch.arange(count, dtype=torch.uint8) * 37 + 11
    raw = raw % 2 if dtype is torch.bool else raw
    tensor = raw.clone().view(dtype).reshape(shape)
    back = there_and_back({"x": tensor}, tmp_path)["x"]
    assert back.dtype == dtype
    assert back.shape == shape
    assert back.reshape(-1).view(torch.uint8).equal(raw)


def test_views_and_parameters_are_saved_as_they_look(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "transposed": base.T,
        "strided": base[1::2, ::3],
        "row": base[2],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "parameter": torch.nn.Parameter(base + 1),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "imaginary": torch.tensor([1 + 2j]).conj().imag,
    }
    back = there_and_back(tree, tmp_path)
    for name, tensor in tree.items():
        assert back[name].equal(tensor.detach().resolve_conj()), name
        assert not back[name].requires_grad
        assert back[name].is_contiguous()


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path):
    embedding = torch.nn.Embedding(1000, 16)
    head = torch.nn.Linear(16, 1000, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "head": head})
    back = there_and_back({"state": model.state_dict(), "again": [head.weight]}, tmp_path)
    assert back["state"]["embedding.weight"] is back["state"]["head.weight"]
    assert back["again"][0] is back["state"]["head.weight"]
    (file,) = tmp_path.glob("*.safetensors")
    assert file.stat().st_size < 1.1 * 1000 * 16 * 4


def test_a_slice_of_a_tensor_is_not_tied_to_it(tmp_path):
    whole = torch.arange(6.0)
    back = there_and_back([whole, whole[:3], whole.view(2, 3)], tmp_path)
    back[0].zero_()
    assert back[1].tolist() == [0, 1, 2]
    assert back[2].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_loaded_tensors_can_be_written_to(tmp_path):
    back = there_and_back({"x": torch.ones(3), "y": np.ones(3)}, tmp_path)
    back["x"] += 1
    back["y"] += 1
    assert back["x"].tolist() == back["y"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "dtype", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", ">f4", ">i8"]
)
def test_numpy_arrays_come_back_as_numpy(dtype, tmp_path):
    array = (np.arange(12).reshape(3, 4) % 5).astype(dtype)[::2].T
    array.setflags(write=False)
    back = there_and_back({"a": array, "zero": np.array(1.5), "none": np.zeros((0, 2))}, tmp_path)
    assert isinstance(back["a"], np.ndarray)
    assert back["a"].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(back["a"], array)
    assert back["zero"].shape == ()
    assert back["zero"] == 1.5
    assert back["none"].shape == (0, 2)


def test_subclasses_come_back_plain(tmp_path):
    class Colour(enum.StrEnum):
        RED = "red"

    tree = {
        "ordered": collections.OrderedDict(b=1, a=2),
        "enum": Colour.RED,
        Colour.RED: enum.IntEnum("Two", {"TWO": 2}).TWO,
        "numpy": (np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True), np.str_("x")),
    }
    back = there_and_back(tree, tmp_path)
    expected = {"ordered": {"b": 1, "a": 2}, "enum": "red", "red": 2}
    assert same(back, {**expected, "numpy": (0.1, float(np.float32(0.1)), -3, True, "x")})


def test_names_that_collide_stay_apart(tmp_path):
    tree = {
        "a/b": torch.tensor(1),
        "a": {"b": torch.tensor(2), 3: torch.tensor(3), "3": torch.tensor(4)},
        "__metadata__": torch.tensor(5),
        "\ud800": torch.tensor(6),
        "": torch.tensor(7),
    }
    back = there_and_back(tree, tmp_path)
    found = [back["a/b"], back["a"]["b"], back["a"][3], back["a"]["3"], back["__metadata__"], back["\ud800"], back[""]]
    assert [int(value) for value in found] == [1, 2, 3, 4, 5, 6, 7]


def test_the_whole_tree_may_be_one_tensor(tmp_path):
    assert there_and_back(torch.tensor([1.0, 2.0]), tmp_path).tolist() == [1, 2]


@pytest.mark.parametrize(
    "leaf",
    [
        object(),
        {1, 2},
        b"bytes",
        print,
        1j,
        np.datetime64("2020-01-01"),
        np.array(["a"]),
        np.array([object()]),
        np.zeros(2, dtype=[("x", "f4")]),
        torch.zeros(2, device="meta"),
        torch.eye(2).to_sparse(),
        {True: 1},
        {1.5: 1},
        {None: 1},
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_what_cannot_be_saved_is_named_by_its_place(leaf, tmp_path):
    with pytest.raises(TypeError, match=r"^model/3: "):
        save(tmp_path, {"model": [0, 1, 2, leaf]}, kind="test", version=1)
    assert list(tmp_path.iterdir()) == []


def test_depth_is_bounded_both_ways(tmp_path):
    def nested(depth):
        tree = 1
        for i in range(depth):
            tree = ([tree], (tree,), {"k": tree}, {0: tree})[i % 4]
        return tree

    deep = nested(MAX_DEPTH)
    assert same(there_and_back(deep, tmp_path), deep)
    endless = []
    endless.append(endless)
    for tree in (nested(MAX_DEPTH + 1), endless):
        with pytest.raises(ValueError, match="levels deep"):
            save(tmp_path, tree, kind="test", version=1)


@pytest.mark.parametrize(
    "value",
    [
        {"$tuple": 1},
        {"$tuple": [], "x": 1},
        {"x": 1, "$tuple": []},
        {"$call": ["os.system", "true"]},
        {"$float": "1.5"},
        {"$float": []},
        {"$dict": {}},
        {"$dict": [[1]]},
        {"$dict": [[1, 2], [1, 3]]},
        {"$dict": [[True, 2]]},
        {"$dict": [[[], 2]]},
        {"$tensor": "w"},
        {"$tensor": "nothing", "dtype": "float32", "shape": [2]},
        {"$tensor": [], "dtype": "float32", "shape": [2]},
        {"$tensor": "w", "dtype": "int32", "shape": [2]},
        {"$tensor": "w", "dtype": "float32", "shape": [1, 2]},
        {"$tensor": "w", "dtype": "float32", "shape": [2], "x": 1},
        {"$array": "half", "dtype": "bfloat16", "shape": [2]},
    ],
    ids=str,
)
def test_signs_that_we_never_write_are_refused(value):
    tensors = {"w": torch.zeros(2), "half": torch.zeros(2, dtype=torch.bfloat16)}
    with pytest.raises(InputError, match=r"^here: model/0: "):
        unflatten({"model": [value]}, tensors, "here")


def test_hostile_depth_is_refused():
    value = []
    for _ in range(500):
        value = [value]
    with pytest.raises(InputError, match="levels deep"):
        unflatten(value, {}, "here")
