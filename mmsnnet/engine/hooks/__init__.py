"""Hooks of stitched training."""

from .anchor_files_hook import StitchAnchorFilesHook
from .head_statistics_hook import HeadStatisticsHook
from .stitch_init_hook import StitchInitHook
from .stitch_sampling_hook import StitchSamplingHook

__all__ = ['HeadStatisticsHook', 'StitchAnchorFilesHook', 'StitchInitHook', 'StitchSamplingHook']
