"""The saved model: tensors in one safetensors file, everything else in one JSON file, no pickle.

>>> import tempfile, torch
>>> with tempfile.TemporaryDirectory() as folder:
...     save(folder, {"weights": {"bias": torch.zeros(2)}, "classes": ("no", "yes")}, kind="example", version=1)
...     tree = load(folder, kind="example", version=1)
>>> tree["classes"], tree["weights"]["bias"].shape
(('no', 'yes'), torch.Size([2]))
"""

from core.artefact.disk import replace_file, replacing
from core.artefact.store import load, save, understood
from core.artefact.structure import Tree

__all__ = ["Tree", "load", "replace_file", "replacing", "save", "understood"]
