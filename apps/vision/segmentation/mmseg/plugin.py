"""Registers when it is imported, which is how configs of mmsegmentation ask for what is not its own::

    custom_imports = dict(imports=["apps.vision.segmentation.mmseg.plugin"])

Nothing here imports it.
"""

from apps.vision.segmentation.mmseg.registration import register

register()
