"""Two tasks on one set of frozen anchors."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmsnnet.apis import share_anchors
from mmsnnet.models import StitchedViT
from tests.builders import random_images, tiny_anchor
from tests.segmentors import build
from tests.test_deploy.models import depth_config
from tests.toy_segmentation import SHAPE, segmentor, write_anchor_files

PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'frozen.md'


def task_models(folder: Path, **backbone: Any) -> tuple[nn.Module, nn.Module]:
    """A segmentor and a depth estimator of mmseg from the same files of anchors, fitted."""
    anchors = write_anchor_files(folder)
    width = SHAPE[-1][1]
    seg, depth = segmentor(), dict(depth_config().model)
    depth['decode_head'] = dict(depth['decode_head'], in_channels=[width] * 4)
    depth['backbone'] = dict(seg['backbone'], out_indices=(1, 2, 4, 5), output_cls_token=True)
    models = []
    for config in (seg, depth):
        config['backbone'] |= dict(anchors=anchors, training='stitches') | backbone
        model = build(config)
        model.backbone.init_weights()
        model.backbone.fit_stitches(random_images(2))
        models.append(model.eval())
    return tuple(models)


def samples_of(kind: str) -> list[SegDataSample]:
    samples = []
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        if kind == 'depth':
            values = 1 + torch.rand(1, 64, 64, generator=generator)
            sample.gt_depth_map = PixelData(data=values)
        else:
            values = torch.randint(4, (1, 64, 64), generator=generator)
            sample.gt_sem_seg = PixelData(data=values)
        samples.append(sample)
    return samples


def train(model: nn.Module, kind: str, stitch: str) -> tuple[float, float]:
    """Three steps of the host's own loss; its values at first and last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    model.train()
    model.backbone.set_training_stitch(stitch)
    values = []
    for _ in range(3):
        losses = model.loss(random_images(), samples_of(kind))
        loss = sum(v for name, v in losses.items() if 'loss' in name)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(loss.detach()))
    model.eval()
    return values[0], values[-1]


@torch.no_grad()
def outputs(model: nn.Module) -> list[torch.Tensor]:
    found = []
    for name in ('S3', 'L6', 'L2-S2'):
        with model.backbone.use_stitch(name):
            found.append(model(random_images()))
    return found


def held_bytes(*models: nn.Module) -> int:
    held = {p.data_ptr(): p.numel() * p.element_size() for m in models for p in m.parameters()}
    return sum(held.values())


def test_segmentation_and_depth_are_trained_on_frozen_anchors_and_run_from_one_set(tmp_path):
    seg, depth = task_models(tmp_path)
    first, last = train(seg, 'segmentation', 'S1-L4')
    assert last < first
    train(depth, 'depth', 'L2-S2')
    before, alone = (outputs(seg), outputs(depth)), held_bytes(seg, depth)
    freed = share_anchors(seg, depth)
    assert depth.backbone.anchors is seg.backbone.anchors
    for found, expected in zip((outputs(seg), outputs(depth)), before):
        assert all(torch.equal(one, other) for one, other in zip(found, expected))
    assert freed == held_bytes(seg.backbone.anchors) == alone - held_bytes(seg, depth)
    assert share_anchors(seg, depth) == 0
    # Either may be trained on, and set to another stitch, without the other's notice.
    train(depth, 'depth', 'S1-L4')
    depth.backbone.set_stitch('S3')
    assert seg.backbone.stitch.name == 'L6'
    assert all(torch.equal(one, other) for one, other in zip(outputs(seg), before[0]))
    assert not all(torch.equal(one, other) for one, other in zip(outputs(depth), before[1]))


def test_anchors_that_learn_or_differ_are_refused(tmp_path):
    seg, depth = task_models(tmp_path)
    learning = copy.deepcopy(segmentor())
    with pytest.raises(ValueError, match='model 2 cannot be shared, as they learn'):
        share_anchors(seg, build(learning))
    changed = copy.deepcopy(seg)
    with torch.no_grad():
        changed.backbone.anchors['L'].vit.cls_token[0, 0, 0] += 1
    with pytest.raises(ValueError, match=r'1 of their weights differ, e\.g\. L\.vit\.cls_token'):
        share_anchors(depth, changed)
    with pytest.raises(ValueError, match='model 3 are not those of the first: they are built'):
        share_anchors(seg, depth, task_models(tmp_path, img_size=96)[0])
    with pytest.raises(ValueError, match='two or more models, got 1'):
        share_anchors(seg)
    assert depth.backbone.anchors is not seg.backbone.anchors


def test_the_example_of_the_page_runs(monkeypatch):
    page = PAGE.read_text(encoding='utf-8')
    blocks = re.findall(r'^```python\n(.*?)^```', page, re.S | re.M)
    example = next(block for block in blocks if 'share_anchors(segmentor' in block)
    build_timm = StitchedViT.from_timm.__func__

    def from_timm(cls: type, *names: str, **settings: Any) -> StitchedViT:
        shapes = [(12, 16) if 'small' in name else (24, 32) for name in names]
        torch.manual_seed(0)
        settings = dict(img_size=64, out_indices=(11, 23)) | settings
        backbone = build_timm(cls, *[tiny_anchor(*one) for one in shapes], **settings)
        backbone.skip_anchor_weights()
        return backbone

    monkeypatch.setattr(StitchedViT, 'from_timm', classmethod(from_timm))
    data = TensorDataset(random_images(4), torch.zeros(4, 8, 8).long(), torch.rand(4, 1, 8, 8))
    names = dict(loader=DataLoader(data, batch_size=2), images=random_images(1))
    exec(compile(example, str(PAGE), 'exec'), names)
    assert names['freed'] == held_bytes(names['segmentor']['backbone'].anchors)
    assert names['labels'].shape == (1, 8, 8) and names['metres'].shape == (1, 1, 8, 8)
