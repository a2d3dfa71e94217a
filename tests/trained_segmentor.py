"""A small segmentor with config, weights and results on disk, as training and a sweep leave it."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config

from mmsnnet.evaluation.cost.model_cost import model_costs
from tests.builders import shake
from tests.results_folder import record, write_results
from tests.segmentors import build
from tests.toy_segmentation import BASE, COLOURS, NAMES, loaders, segmentor

#: mIoU of each stitch, of which two are worth less than cheaper ones.
QUALITIES = dict(zip(NAMES, (40.0, 50.0, 49.0, 41.0, 44.0, 39.0, 48.0, 43.0)))


class Trained:
    """A config and a checkpoint on disk, and the model that they are of.

    Attributes:
        config, checkpoint: Files.
        results: Folder of a sweep of it, which says :data:`QUALITIES`.
        records: What lies there.
        model: The segmentor.
        costs: Costs of the whole of it.
    """

    def __init__(self, folder: Path) -> None:
        config = Config.fromstring(BASE, '.py')
        config.merge_from_dict(dict(model=segmentor(), **loaders(folder)))
        self.config = str(folder / 'config.py')
        config.test_pipeline = config.test_dataloader.dataset.pipeline
        config.dump(self.config)
        self.model = build(segmentor()).eval()
        shake(self.model)
        self.model.backbone.mark_fitted()
        self.checkpoint = str(folder / 'weights.pth')
        meta = dict(dataset_meta=dict(classes=('a',) * 4, palette=COLOURS.tolist()))
        torch.save(dict(state_dict=self.model.state_dict(), meta=meta), self.checkpoint)
        self.costs = model_costs(self.model, 64)
        records = [
            dict(record(name, 0, QUALITIES[name], number), **vars(self.costs[name]))
            for number, name in enumerate(NAMES)
        ]
        self.results = write_results(folder / 'sweep', records)
        self.records = records
