"""Configs of a test of stitches, with test-time augmentation if it is wanted."""

from __future__ import annotations

import itertools
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmsnnet.compat import prepare_cpu_launch

from .processes import LONGEST_WAIT

#: Arguments of a loop of mmsnnet about the metric that sums a stitch up.
METRIC_KEYS = ('metric', 'rule', 'metric_range')


#: Number of the next sweep of this process.
_SWEEPS = itertools.count()


def prepare_config(cfg: Config, checkpoint: str, work_dir: str) -> Config:
    """Make a config test stitches with a checkpoint.

    The loop becomes ``StitchTestLoop``; what the config says of its metric, for test or for
    validation, is kept.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the config describes no test.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise ValueError('The config has no test_dataloader and test_evaluator to score with.')
    test_cfg = dict(cfg.get('test_cfg') or {})
    known = {**dict(cfg.get('val_cfg') or {}), **test_cfg}
    cfg.test_cfg = dict(
        type='StitchTestLoop',
        stitches='all',
        fp16=test_cfg.get('fp16', False),
        **{key: known[key] for key in METRIC_KEYS if key in known},
    )
    cfg.load_from, cfg.resume, cfg.work_dir = checkpoint, False, work_dir
    # Names the runner's logger and visualizer, which MMEngine keeps apart by the second alone.
    # Never one name twice: MMEngine would hand out a visualizer whose folder may be gone.
    cfg.experiment_name = f'sweep_{work_dir}_{next(_SWEEPS)}'.replace('/', '_')
    # A line per iteration of each of a hundred passes would bury what matters.
    cfg.log_level = 'WARNING'
    # Its history of all iterations is copied at each of them.
    _part(cfg, 'default_hooks').timer = None
    # NCCL gives up after ten minutes otherwise, which a pass of one process may take longer.
    _part(_part(cfg, 'env_cfg'), 'dist_cfg').setdefault('timeout', LONGEST_WAIT)
    prepare_cpu_launch(cfg)
    return cfg


def _part(cfg: Config | ConfigDict, key: str) -> ConfigDict:
    """A dict within a config, made where there is none."""
    if cfg.get(key) is None:
        cfg[key] = ConfigDict()
    return cfg[key]


def augment_test(cfg: Config) -> None:
    """Put the config's ``tta_model`` around its model, and its ``tta_pipeline`` into the test.

    Raises:
        ValueError: If the config has no such parts.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise ValueError(
            f'The config has no {" and no ".join(missing)}, so --tta has nothing to augment by.'
        )
    if cfg.get('test_dataloader') is not None:
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
