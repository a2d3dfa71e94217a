"""What a stitch is, what it costs and how to choose one. Standard library only."""

from .alignment import Alignment
from .anchor import AnchorSpec, BlockCost, check_stitchable, cost_order, default_labels
from .cost import Cost, CostTable, check_image_size
from .program import Block, Cross, Embed, LayerKey, Step, Tap
from .route import Route, Segment
from .scheme import Scheme, parse_scheme
from .selection import select_stitches
from .space import Stitch, StitchSpace

__all__ = [
    'Alignment',
    'AnchorSpec',
    'Block',
    'BlockCost',
    'Cost',
    'CostTable',
    'Cross',
    'Embed',
    'LayerKey',
    'Route',
    'Scheme',
    'Segment',
    'Step',
    'Stitch',
    'StitchSpace',
    'Tap',
    'check_image_size',
    'check_stitchable',
    'cost_order',
    'default_labels',
    'parse_scheme',
    'select_stitches',
]
