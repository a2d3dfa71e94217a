"""Trained stitched models in Python: load one and choose its stitch by budget."""

from .init_model import init_model
from .stitch_control import StitchControl

__all__ = ['StitchControl', 'init_model']
