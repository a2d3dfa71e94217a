"""What torch of before 2.5 and 2.4 cannot do, or does wrongly."""
from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmsnnet.compat.installation import numbers_of

SHARES_COMPILED_BLOCKS = (2, 5)
SYNCHRONISES_SKIPPED_BACKWARDS = (2, 4)


def is_older_than(release: tuple[int, ...]) -> bool:
    """Tells whether the installed torch is older than a release, such as (2, 4)."""
    return numbers_of(torch.__version__) < release


def check_compiles_blocks() -> None:
    """Refuses to compile blocks by a torch that compiles every block anew.

    Before 2.5 weights of modules are constants of what is compiled, so blocks share nothing, torch
    gives up after 8 of them, and recomputing their activations in the backward fails.

    Raises:
        ValueError: if torch is too old.
    """
    if is_older_than(SHARES_COMPILED_BLOCKS):
        raise ValueError(
            f'compile_blocks needs torch 2.5 or newer, and this is {torch.__version__}, which '
            'would compile every block anew: leave compile_blocks out.')


def synchronise_every_backward(model: nn.Module) -> None:
    """Lets DistributedDataParallel of an old torch average gradients in each backward.

    While gradients accumulate, processes average in the last backward alone, and before torch 2.4
    only what that one used (pytorch/pytorch#69031): stitches differ by iteration, so the weights
    of earlier ones would drift apart between processes. Averages of averages are the same numbers.

    Args:
        model: the model, wrapped or not; any other wrapper is left alone.
    """
    if isinstance(model, DistributedDataParallel) \
            and is_older_than(SYNCHRONISES_SKIPPED_BACKWARDS):
        model.no_sync = nullcontext
