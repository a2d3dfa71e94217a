"""OneCycle with a peak for each parameter group."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OneCycleLR

from mmsnnet.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class GroupOneCycleLR(OneCycleLR):
    """OneCycle whose peak is the learning rate that each parameter group has at the start.

    MMEngine's ``OneCycleLR`` takes one ``eta_max`` for all groups, which overrides the factors of
    ``paramwise_cfg`` (``lr_mult``, layer decay), or a list with a value for each of several
    hundred groups. This one makes the list: the optimizer's learning rates, factors included.

    Args:
        optimizer: The optimizer, or its wrapper.
        kwargs: As of ``OneCycleLR``, without ``eta_max``.

    Raises:
        ValueError: If ``eta_max`` is given.
    """

    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        if args or 'eta_max' in kwargs:
            raise ValueError(
                'GroupOneCycleLR takes the peak of each group from the optimizer: set '
                'optim_wrapper.optimizer.lr and paramwise_cfg in place of eta_max, or use '
                "type='OneCycleLR' for one peak."
            )
        peaks = [group['lr'] for group in optimizer.param_groups]
        super().__init__(optimizer, eta_max=peaks, **kwargs)
