"""Exported models at run time: numpy and onnxruntime (or OpenVINO), neither torch nor MMEngine."""

from .controller import BudgetController
from .metadata import ModelMetadata, StitchEntry
from .session import MeasuredLatency, StitchSession

__all__ = [
    'BudgetController',
    'MeasuredLatency',
    'ModelMetadata',
    'StitchEntry',
    'StitchSession',
]
