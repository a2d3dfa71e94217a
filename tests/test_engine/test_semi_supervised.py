"""A student and its teacher, as MMDetection trains them on few labels."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from mmsnnet.engine.hooks import StitchInitHook, StitchSamplingHook
from mmsnnet.models import find_predicting_backbone, find_stitched_backbone
from mmsnnet.registry import MODELS
from tests.toy_detection import NAMES, SIDE, toy_config


def build(tmp_path, fitted=True, **settings):
    """mmdet's SoftTeacher around a small Faster R-CNN."""
    detector = toy_config(tmp_path, tmp_path / 'run').model
    detector.type = 'FasterRCNN'
    detector.roi_head.mask_head = detector.roi_head.mask_roi_extractor = None
    preprocessor = detector.pop('data_preprocessor')
    model = Config(
        dict(
            model=dict(
                type='SoftTeacher',
                detector=detector,
                data_preprocessor=dict(
                    type='MultiBranchDataPreprocessor', data_preprocessor=preprocessor
                ),
                semi_train_cfg=dict(
                    freeze_teacher=True, sup_weight=1.0, unsup_weight=4.0,
                    pseudo_label_initial_score_thr=0.5,
                    rpn_pseudo_thr=0.9, cls_pseudo_thr=0.9, reg_pseudo_thr=0.02, jitter_times=2,
                    jitter_scale=0.06, min_pseudo_bbox_wh=(1e-2, 1e-2),
                ),
                semi_test_cfg=dict(predict_on='teacher'),
            )
        )
    )  # fmt: skip
    model.merge_from_dict(dict(model=settings))
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(model.model)
    for part in (built.student, built.teacher) if fitted else ():
        part.backbone.mark_fitted()
    return built.train()


def sample(boxes: int = 1) -> DetDataSample:
    shape = (SIDE, SIDE)
    instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]])[:boxes],
        labels=torch.zeros(boxes, dtype=torch.long),
    )
    return DetDataSample(
        metainfo=dict(
            img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape,
            scale_factor=(1.0, 1.0), homography_matrix=torch.eye(3).numpy(), img_id=0,
        ),
        gt_instances=instances,
    )  # fmt: skip


def step(model):
    """Losses of one training step: a labelled picture, and an unlabelled one in two views."""
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    inputs = {name: torch.randn(1, 3, SIDE, SIDE) for name in branches}
    samples = {name: [sample(int(name == 'sup'))] for name in branches}
    return model.loss(inputs, samples)


@contextmanager
def stitches_run(backbone):
    """Names of the stitches that a backbone runs."""
    names, run = [], backbone.run

    def spy(images, stitch):
        names.append(backbone.space[stitch].name)
        return run(images, stitch)

    backbone.run = spy
    try:
        yield names
    finally:
        del backbone.run


@pytest.mark.parametrize('frozen', [True, False])
def test_pseudo_labels_come_from_the_chosen_stitch_and_do_not_count(tmp_path, frozen):
    model = build(tmp_path, semi_train_cfg=dict(freeze_teacher=frozen))
    student, teacher = model.student.backbone, model.teacher.backbone
    assert teacher.training  # the Runner puts all of a model into train mode
    for name in NAMES:
        teacher.set_stitch(name)
        with stitches_run(teacher) as ran:
            step(model)
        assert set(ran) == {name}
    assert int(teacher.training_steps) == 0 and int(student.training_steps) == 2 * len(NAMES)


def test_the_student_learns_sampled_stitches_beside_its_teacher(tmp_path):
    model = build(tmp_path)
    with stitches_run(model.student.backbone) as ran:
        for _ in range(4):
            step(model)
    sampler = model.student.backbone.sampler
    assert ran == [sampler.sample(number).name for number in range(8)]


def test_the_hook_sets_the_stitch_of_the_student_alone(tmp_path):
    class Runner:
        iter = 0

    model = build(tmp_path)
    Runner.model = model
    hook = StitchSamplingHook(sampler=dict(type='FixedStitchSampler', stitch='S1-L2'))
    hook.before_train(Runner)
    hook.before_train_iter(Runner, 0)
    with stitches_run(model.student.backbone) as own, stitches_run(model.teacher.backbone) as other:
        step(model)
    assert own == ['S1-L2', 'S1-L2'] and other == ['L4']


def test_the_student_is_the_backbone_that_learns_and_the_teacher_the_one_that_predicts(tmp_path):
    model = build(tmp_path)
    assert find_stitched_backbone(model) is model.student.backbone
    assert find_predicting_backbone(model) is model.teacher.backbone
    model.semi_test_cfg = dict(predict_on='student')
    assert find_predicting_backbone(model) is model.student.backbone


def test_the_fit_takes_images_of_all_branches_and_serves_the_teacher_too(tmp_path):
    model = build(tmp_path, fitted=False)
    picture = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8)
    branches = ('sup', 'unsup_teacher')
    data = [
        dict(
            inputs=dict.fromkeys(branches, picture),
            data_samples={name: sample() for name in branches},
        )
    ] * 2
    logger = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    loader = DataLoader(data, batch_size=2, collate_fn=pseudo_collate)
    StitchInitHook(num_images=2).before_train(
        SimpleNamespace(model=model, train_dataloader=loader, logger=logger)
    )
    student, teacher = model.student.backbone, model.teacher.backbone
    assert student.is_fitted and teacher.is_fitted and bool(teacher.stitches_fitted)
    for name, weight in student.stitch_layers.state_dict().items():
        assert torch.equal(teacher.stitch_layers.state_dict()[name], weight)


def test_two_backbones_that_learn_are_refused_with_what_to_do(tmp_path):
    model = build(tmp_path, semi_train_cfg=dict(freeze_teacher=False))
    message = r'2 StitchedViT .*\(student\.backbone, teacher\.backbone\), .*freeze_teacher=True'
    with pytest.raises(ValueError, match=message) as caught:
        find_stitched_backbone(model)
    assert '\n' not in str(caught.value)
