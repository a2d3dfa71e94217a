"""Takes gradients that are accumulated over iterations out of a model, and puts them back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.dist import all_gather, all_gather_object, get_world_size, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

#: Gradients by name of their parameter, on the CPU.
Gradients = Mapping[str, Tensor]


def is_accumulating(runner: Runner) -> bool:
    """Whether gradients of past iterations wait for those of coming ones to be applied.

    It is so amidst the iterations that ``accumulative_counts`` of the optimizer's wrapper counts.
    """
    should_update = getattr(runner.optim_wrapper, 'should_update', None)
    return should_update is not None and not should_update()


def gather_gradients(model: nn.Module) -> list[dict[str, Tensor]]:
    """Gradients of every process; to be called in all of them.

    While gradients accumulate each process has its own: they are averaged at the end alone.

    Args:
        model: Model, wrapped or not.

    Returns:
        In the first process one dict a process, in the others an empty list.
    """
    parameters = dict(_unwrapped(model).named_parameters())
    own = {name for name, p in parameters.items() if p.grad is not None}
    # Stitches differ by process, so do the weights that have gradients.
    present: list[set[str]] = all_gather_object(own)
    gathered: list[dict[str, Tensor]] = [{} for _ in range(get_world_size())]
    for name in (name for name in parameters if any(name in names for names in present)):
        parameter = parameters[name]
        # One by one: all gradients of all processes at once may not fit a GPU.
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for rank, part in enumerate(all_gather(gradient.detach().contiguous())):
            if is_main_process() and name in present[rank]:
                gathered[rank][name] = part.cpu().clone()
    return gathered if is_main_process() else []


def restore_gradients(model: nn.Module, gradients: Gradients) -> None:
    """Give the parameters of a model the gradients of one process.

    Raises:
        KeyError: If the model has no parameter of a gradient's name.
    """
    parameters = dict(_unwrapped(model).named_parameters())
    if gradients:
        # DistributedDataParallel averages gradients of weights that it saw in a backward since the
        # last average; let it see one. The zeros that this leaves are replaced below.
        (sum(parameters[name].sum() for name in gradients) * 0).backward()
    for name, gradient in gradients.items():
        parameters[name].grad = gradient.to(parameters[name]).clone()


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
