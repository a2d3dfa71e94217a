"""Tests with test-time augmentation, as configs of mmseg and mmdet describe it."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict


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
