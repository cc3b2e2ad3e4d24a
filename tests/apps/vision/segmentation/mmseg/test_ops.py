"""What stands in for compiled operations, and what is said where a package is missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from apps.vision.segmentation.data.folders import open_folder
from apps.vision.segmentation.mmseg import mmseg_module, ops, without_compiled_ops
from core.errors import InputError


@pytest.fixture
def fresh(monkeypatch):
    """As if mmcv had not been imported; gives what can be found."""
    found = {"mmcv"}
    monkeypatch.delitem(sys.modules, ops.EXTENSION, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None) if name in found else None)
    yield found
    sys.modules.pop(ops.EXTENSION, None)


def test_an_operation_says_that_it_is_missing_when_it_is_called(fresh):
    assert without_compiled_ops()
    assert without_compiled_ops()  # a second time too
    extension = sys.modules[ops.EXTENSION]
    assert extension.__spec__.loader is None
    operation = extension.nms  # looking it up, as mmcv does on import, is allowed
    with pytest.raises(InputError, match="the operation 'nms' is compiled, and not installed"):
        operation(1, 2)
    with pytest.raises(AttributeError):
        _ = extension.__path__


def test_a_real_extension_is_left_alone(fresh, monkeypatch):
    fresh.add(ops.EXTENSION)
    assert not without_compiled_ops()
    assert ops.EXTENSION not in sys.modules
    monkeypatch.setitem(sys.modules, ops.EXTENSION, ModuleType(ops.EXTENSION))
    assert not without_compiled_ops()


def test_what_is_not_installed_is_one_line_with_the_extra(fresh, monkeypatch, tmp_path):
    (tmp_path / "config.py").write_text("x = 1\n")

    def refuse(error):
        def import_module(name):
            raise error

        monkeypatch.setattr(importlib, "import_module", import_module)

    refuse(ModuleNotFoundError("No module named 'mmseg'", name="mmseg"))
    with pytest.raises(InputError, match=r'mmseg is not installed; pip install "manyformer\[segmentation\]"'):
        open_folder(tmp_path / "config.py")
    refuse(AssertionError("MMCV==2.2.0 is used but incompatible."))
    with pytest.raises(InputError, match=r"MMCV==2\.2\.0 is used but incompatible"):
        mmseg_module("mmseg")
    fresh.clear()
    monkeypatch.delitem(sys.modules, ops.EXTENSION)
    with pytest.raises(InputError, match=r'mmcv is not installed; pip install "manyformer\[segmentation\]"'):
        mmseg_module("mmseg")
