"""Weights of the published SN-Netv2 segmentors and classifiers."""

from .checkpoint_file import read_checkpoint, write_checkpoint
from .conversion import Conversion, from_published, to_published

__all__ = ['Conversion', 'from_published', 'read_checkpoint', 'to_published', 'write_checkpoint']
