"""A StitchedViT with the simple feature pyramid in detectors of MMDetection."""

from __future__ import annotations

from typing import Any

from _drop_in import Outcome, build, check_finite, chosen, tiny_anchors

#: One config of each kind, all with ResNet-50 and FPN or without a neck.
PATTERNS = (
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
    'retinanet/retinanet_r50_fpn_1x_coco',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
)
IMAGE_SIZE, PATCH_SIZE, DEPTH = 128, 16, 4


def shrink(cfg: Any) -> str:
    """Replace the backbone of a config by a tiny StitchedViT; returns the old one's class.

    The config keeps its heads, losses, test settings and optimizer; images become small.
    """
    old = cfg.model.backbone.type
    cfg.model.backbone = dict(
        type='StitchedViT',
        anchors=tiny_anchors(DEPTH, PATCH_SIZE),
        img_size=IMAGE_SIZE,
        out_indices=(DEPTH - 1,),
    )
    cfg.model.data_preprocessor.batch_augments = None  # pads to 1024 pixels
    for key in ('mean', 'std'):  # noise needs no normalisation
        cfg.model.data_preprocessor[key] = [0.0 if key == 'mean' else 1.0] * 3
    return old


def noise(count: int = 2) -> dict[str, list[Any]]:
    """A batch of noise pictures with two objects each, as a data loader of mmdet delivers it."""
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[8.0, 16.0, 72.0, 80.0], [40.0, 32.0, 120.0, 112.0]])
    masks = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for mask, box in zip(masks, boxes.int().tolist()):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
    samples = [
        DetDataSample(
            metainfo=dict(meta, img_id=number),
            gt_instances=InstanceData(
                bboxes=boxes.clone(),
                labels=torch.tensor([0, 5]),
                masks=BitmapMasks(masks, *shape),
            ),
        )
        for number in range(count)
    ]
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 3, *shape), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(pictures), data_samples=samples)


def exercise(cfg: Any, outcome: Outcome) -> None:
    """Train a config's model for one step and test a few stitches.

    Raises:
        ValueError: If something is not finite.
    """
    import torch
    from mmdet.utils import register_all_modules
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    from mmsnnet.models import find_stitched_backbone

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build(cfg, outcome.changes)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        check_finite('training', model.train().train_step(noise(), wrapper).values())
        backbone = find_stitched_backbone(model.eval())
        for stitch in chosen(backbone):
            with torch.no_grad(), backbone.use_stitch(stitch):
                found = model.test_step(noise())[0].pred_instances
            check_finite(stitch.name, [found.bboxes, found.scores])
            outcome.stitches.append(stitch.name)
