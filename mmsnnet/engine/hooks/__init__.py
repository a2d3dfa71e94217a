"""Hooks of stitched training."""

from .head_statistics_hook import HeadStatisticsHook
from .stitch_init_hook import StitchInitHook
from .stitch_sampling_hook import StitchSamplingHook

__all__ = ['HeadStatisticsHook', 'StitchInitHook', 'StitchSamplingHook']
