"""SN-Netv2 for dense prediction: several pretrained plain ViTs stitched into one backbone.

Importing the package registers its backbone, heads, hooks and loops in MMEngine's root registries,
so that configs of mmseg and mmdet use them without a prefix:
``custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)``.
"""

from mmsnnet import compat

# Before anything imports mmseg or mmdet: both import mmcv.ops.
compat.install()

from mmsnnet import datasets, engine, models  # noqa: E402
from mmsnnet.recipes import config_path  # noqa: E402
from mmsnnet.version import __version__  # noqa: E402

__all__ = ['__version__', 'compat', 'config_path', 'datasets', 'engine', 'models']
