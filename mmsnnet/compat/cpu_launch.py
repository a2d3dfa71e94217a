"""Several training processes on machines without CUDA.

mmengine assumes CUDA as soon as a launcher is given: ``init_dist('pytorch')`` calls
``torch.cuda.set_device``, and the runner wraps the model with ``device_ids=[LOCAL_RANK]`` (also
where the config describes the wrapper, unless it sets ``device_ids`` itself), which
DistributedDataParallel refuses for a model on the CPU. The runner leaves a process group alone
that already exists, so the way around is: start a gloo group first, and describe the wrapper with
``device_ids=None``. Synchronised batch norm has no CPU kernel, so it becomes plain batch norm.
"""
from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import distributed

NEEDED_VARIABLES = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'NaiveSyncBN')


def init_cpu_distributed(timeout: float = 1800.0) -> bool:
    """Starts the gloo process group that the environment describes, where CUDA is absent.

    To be called before the runner is built. The variables are those that ``torchrun`` sets.

    Args:
        timeout: seconds that a process waits for the others at most.

    Returns:
        True if a group was started; False where CUDA is present (mmengine then starts its own)
        or where the process group already exists.

    Raises:
        ValueError: if one of RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set.
    """
    if torch.cuda.is_available() or (distributed.is_available() and distributed.is_initialized()):
        return False
    missing = [name for name in NEEDED_VARIABLES if name not in os.environ]
    if missing:
        raise ValueError(f'environment variables {", ".join(missing)} are not set; start the '
                         'processes with torchrun --nproc_per_node=N, or use --launcher none')
    distributed.init_process_group('gloo', 'env://', timedelta(seconds=timeout))
    # The runner reads it when it wraps the model; all processes of a CPU share one device.
    os.environ.setdefault('LOCAL_RANK', os.environ['RANK'])
    return True


def prepare_cpu_launch(cfg: Config) -> bool:
    """Makes a config with a launcher run on the CPU; changes nothing where CUDA is present.

    Starts the gloo group, sets what ``model_wrapper_cfg`` must say on a CPU (a wrapper of the
    user's keeps its own settings) and turns synchronised batch norm into plain batch norm with
    one log line, since statistics are then those of each process.

    Args:
        cfg: the config that the runner will be built from, changed in place.

    Returns:
        True if the config was prepared; False without a launcher or with CUDA.

    Raises:
        ValueError: if the launcher is neither 'none' nor 'pytorch', or a variable of the
            environment is not set.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or torch.cuda.is_available():
        return False
    if launcher != 'pytorch':
        raise ValueError(f"launcher {launcher!r} needs CUDA; without it use 'pytorch' (torchrun) "
                         "or 'none'")
    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    init_cpu_distributed(**{key: settings[key] for key in ('timeout',) if key in settings})
    wrapper: dict[str, Any] = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    cfg.pop('sync_bn', None)
    replaced = _replace_sync_norms(cfg.get('model'))
    if replaced:
        MMLogger.get_current_instance().warning(
            f'{replaced} settings of synchronised batch norm became plain batch norm: it has no '
            'CPU kernel, so each process normalises by its own statistics')
    return True


def _replace_sync_norms(node: Any) -> int:
    """Turns every synchronised norm in a tree of dicts and lists into BN and counts them."""
    if isinstance(node, (list, tuple)):
        return sum(_replace_sync_norms(child) for child in node)
    if not isinstance(node, dict):
        return 0
    found = node.get('type') in SYNC_NORMS
    if found:
        node['type'] = 'BN'
    return int(found) + sum(_replace_sync_norms(child) for child in node.values())
