"""Finds the stitched backbone inside a model, and checks whether it can be evaluated."""

from __future__ import annotations

from torch import nn

from ..stitched_vit import StitchedViT


def find_stitched_backbone(model: nn.Module) -> StitchedViT:
    """The StitchedViT of a detector or segmentor, wrapped for distributed training or not.

    Of a student and frozen teachers it is the student's.

    Raises:
        ValueError: If the model has none, or several of which not exactly one can learn.
    """
    found = {
        name: module for name, module in model.named_modules() if isinstance(module, StitchedViT)
    }
    if len(found) == 1:
        return next(iter(found.values()))
    learning = [one for one in found.values() if any(p.requires_grad for p in one.parameters())]
    if len(learning) == 1:
        return learning[0]
    if found:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} StitchedViT backbones ({", ".join(found)}), '
            f'of which {len(learning)} can learn; exactly one is needed: freeze the others, as '
            'semi_train_cfg=dict(freeze_teacher=True) freezes a teacher.'
        )
    raise ValueError(
        f'{type(model).__name__} has 0 StitchedViT backbones; exactly one is needed: '
        "backbone=dict(type='StitchedViT', ...)."
    )


def find_predicting_backbone(model: nn.Module) -> StitchedViT:
    """The StitchedViT that predictions come from.

    A semi-supervised detector of MMDetection predicts by its teacher, or by its student where
    ``semi_test_cfg`` says so; of any other model it is :func:`find_stitched_backbone`.

    Raises:
        ValueError: If what predicts has none, or several of which not exactly one can learn.
    """
    model = without_augmentation(model)
    if hasattr(model, 'semi_test_cfg'):
        # The names, and the default, of mmdet.models.detectors.SemiBaseDetector.predict.
        on_teacher = (model.semi_test_cfg or {}).get('predict_on', 'teacher') == 'teacher'
        return find_stitched_backbone(model.teacher if on_teacher else model.student)
    return find_stitched_backbone(model)


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of MMDetection, with one stage or two."""
    names = ('rpn_head', 'bbox_head', 'mask_head', 'panoptic_head', 'roi_head')
    return not hasattr(model, 'decode_head') and any(hasattr(model, name) for name in names)


def is_classifier(model: nn.Module) -> bool:
    """Whether a model is a classifier of MMPretrain: backbone, neck or none, and one head."""
    if hasattr(model, 'decode_head') or is_detector(model):
        return False
    return getattr(model, 'head', None) is not None


def reads_anchor_tokens(model: nn.Module) -> bool:
    """Whether a model's head chooses its weights by the anchor in which a stitch ends."""
    return is_classifier(model) and hasattr(model.head, 'check_backbone')


def without_augmentation(model: nn.Module) -> nn.Module:
    """The model that an augmenting one runs on each copy of an image, or the model itself."""
    from mmengine.model import BaseTTAModel

    while (inner := without_wrapper(model)) is not model or isinstance(model, BaseTTAModel):
        model = inner if inner is not model else model.module
    return model


def without_wrapper(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for distributed training, or the model itself."""
    from mmengine.model import is_model_wrapper  # takes all of mmengine's training along

    return model.module if is_model_wrapper(model) else model


def check_fitted(backbone: StitchedViT) -> None:
    """Refuse a backbone whose stitch layers are random.

    Raises:
        ValueError: If stitch layers were neither fitted nor loaded.
    """
    if not backbone.is_fitted:
        raise ValueError(
            'The stitch layers were never fitted, so every stitch but the anchors is random: load '
            'the checkpoint of a trained stitched model, or train with '
            "custom_hooks=[dict(type='StitchInitHook')]."
        )


def check_loaded(backbone: StitchedViT, checkpoint: object) -> None:
    """Refuse a backbone at random weights.

    MMEngine loads with ``strict=False`` and says nothing of a file that fits in no place.

    Args:
        backbone: Backbone of a model into which a checkpoint was loaded.
        checkpoint: Its file, to be named.

    Raises:
        ValueError: If the checkpoint held no weights of the backbone, or of one never fitted.
    """
    if not backbone.was_loaded:
        raise ValueError(
            f'Checkpoint {checkpoint} holds no weights of the stitched backbone: give the one of '
            'the training of this config.'
        )
    check_fitted(backbone)
