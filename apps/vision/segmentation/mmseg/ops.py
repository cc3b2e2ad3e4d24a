"""mmsegmentation 1.x, imported where mmcv has no compiled operations.

mmsegmentation needs ``mmcv``; where only ``mmcv-lite`` is installed, importing its models stops at the missing
extension ``mmcv._ext``, although few of them call it. :func:`without_compiled_ops` stands in for it: the import goes
through, and what does call a compiled operation is told so when it does. Facts of mmsegmentation 1.2.2, mmcv-lite
2.1.0, mmengine 0.10.7.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from core.errors import InputError

EXTENSION = "mmcv._ext"
_MEND = 'pip install "manyformer[segmentation]"'


class _Missing(ModuleType):
    """The extension, of which every operation says that it is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> None:
            mend = "install mmcv with its operations, or choose a model without them"
            raise InputError(f"the operation {name!r} is compiled, and not installed", where="mmcv", mend=mend)

        return refuse


def without_compiled_ops() -> bool:
    """Let mmsegmentation be imported where mmcv has no compiled operations; before its first import.

    Returns:
        Whether a stand-in was needed; a real extension is left alone.

    Raises:
        InputError: mmcv is not installed.
    """
    if EXTENSION in sys.modules:
        return isinstance(sys.modules[EXTENSION], _Missing)
    if importlib.util.find_spec("mmcv") is None:
        raise InputError("mmcv is not installed", where="mmsegmentation", mend=_MEND)
    if importlib.util.find_spec(EXTENSION) is not None:
        return False
    missing = _Missing(EXTENSION)
    # mmengine looks at the spec: without one it fails, and with a loader it asks for compiled batch norms.
    missing.__spec__ = ModuleSpec(EXTENSION, None)
    sys.modules[EXTENSION] = missing
    return True


def mmseg_module(name: str) -> ModuleType:
    """A module of mmsegmentation, mmcv or mmengine, imported without what these warn of on the way.

    Raises:
        InputError: one of them is not installed, or they refuse one another's versions.
    """
    without_compiled_ops()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed", where="mmsegmentation", mend=_MEND) from error
    except AssertionError as error:  # its way of checking versions
        raise InputError(str(error), where="mmsegmentation", mend=_MEND) from error
