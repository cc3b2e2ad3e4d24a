"""mmsegmentation 1.x: our networks and data under names that its configs can use.

Nothing of it is imported before :func:`register` is called; :mod:`.plugin` is the module that a config names.
"""

from apps.vision.segmentation.mmseg.ops import mmseg_module, without_compiled_ops
from apps.vision.segmentation.mmseg.registration import register

__all__ = ["mmseg_module", "register", "without_compiled_ops"]
