"""Trained stitched models in Python: load one and choose its stitch by budget, share anchors."""

from mmsnnet.models.host.shared_anchors import share_anchors

from .init_model import init_model
from .stitch_control import StitchControl

__all__ = ['StitchControl', 'init_model', 'share_anchors']
