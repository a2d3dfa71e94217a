"""The only place with version branches.

mmcv without operators, safe loading, processes on the CPU, the maintained forks of OpenMMLab,
mmpretrain beside transformers 5.
"""
from __future__ import annotations

from mmsnnet.compat.cpu_launch import init_cpu_distributed, prepare_cpu_launch
from mmsnnet.compat.fork_packages import find_fork_configs
from mmsnnet.compat.mmpretrain_import import ease_mmpretrain
from mmsnnet.compat.ops_finder import install_finder
from mmsnnet.compat.safe_load import allow_mmengine_checkpoints, load_allowed
from mmsnnet.compat.safe_schemes import read_checkpoints_safely

__all__ = ['init_cpu_distributed', 'install', 'load_allowed', 'prepare_cpu_launch']


def install() -> None:
    """Makes mmcv's ops, mmengine's checkpoints and the configs of forks loadable.

    Calling it again is free.

    To be called before anything of mmseg, mmdet or mmcv.ops is imported: modules of theirs that
    tried ``import mmcv.ops`` earlier and caught the error stay without it.
    """
    install_finder()
    allow_mmengine_checkpoints()
    read_checkpoints_safely()
    find_fork_configs()
    ease_mmpretrain()
