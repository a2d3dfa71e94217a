"""Whether the head of a classifier is made for what its stitched backbone delivers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..stitched_vit import StitchedViT
from .layer_widths import LayerWidths
from .lookup import reads_anchor_tokens, without_augmentation
from .meta_call import meta_call, meta_features

#: Side, in tokens, of the map that other heads are tried on.
_TRIAL_GRID = 8


def check_classifier(model: nn.Module, backbone: StitchedViT) -> None:
    """Check that a classifier's head takes what its backbone delivers.

    A StitchedClsHead takes the tokens of each anchor; any other head of MMPretrain takes maps of
    constant channels, mostly through a neck that pools them.

    Args:
        model: Classifier of MMPretrain.
        backbone: Its backbone.

    Raises:
        ValueError: If it does not; the message says what to put.
    """
    head = model.head
    kind = type(head).__name__
    if backbone.output_cls_token:
        raise ValueError(
            f'head {kind} reads tensors, but output_cls_token=True delivers pairs of a map and a '
            'class token: leave it out; StitchedClsHead with backbone.lift_taps=False reads class '
            'tokens.'
        )
    if reads_anchor_tokens(model):
        if getattr(model, 'neck', None) is not None:
            raise ValueError(
                f'neck {type(model.neck).__name__} cannot read the tokens that go to {kind}: put '
                'neck=None.'
            )
        head.check_backbone(backbone)
    elif backbone.space.lift_taps:
        _check_widths(model, backbone)
    else:
        raise ValueError(
            f'head {kind} has one set of weights, but lift_taps=False delivers the tokens of '
            "whichever anchor a stitch ends in: put head=dict(type='StitchedClsHead', ...), or "
            "leave lift_taps out and put neck=dict(type='GlobalAveragePooling')."
        )


def check_class_count(model: nn.Module, dataset: Any) -> None:
    """Check that a classifier has a place for each class of its training data.

    Args:
        model: Model; those that are no classifiers with a StitchedClsHead are passed over.
        dataset: Data set, which names its classes in ``metainfo``; one that does not has any.

    Raises:
        ValueError: If it has not, or mixes labels (CutMix, Mixup) of another number of classes.
    """
    model = without_augmentation(model)
    if not reads_anchor_tokens(model):
        return
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    own, wanted = model.head.num_classes, max(len(classes), model.head.num_classes)
    preprocessor = model.data_preprocessor
    mixed = preprocessor.num_classes if getattr(preprocessor, 'batch_augments', None) else own
    if wanted == own == mixed:
        return
    if len(classes) > own:
        found = f'The data set has {len(classes)} classes, the model head.num_classes={own}'
    else:
        found = (
            f'CutMix or Mixup of data_preprocessor.num_classes={mixed} does not fit '
            f'head.num_classes={own}'
        )
    raise ValueError(f'{found}: put {wanted} into head and data_preprocessor.')


def _check_widths(model: nn.Module, backbone: StitchedViT) -> None:
    """Run neck and head on shapes alone; what fails for another reason is passed over.

    Raises:
        ValueError: If a layer is given another number of channels than it takes.
    """
    neck, head = getattr(model, 'neck', None), model.head
    count = len(backbone.space.taps)

    def run(features: Any) -> Any:
        return head.forward(features if neck is None else neck(features))

    modules = [head] if neck is None else [neck, head]
    with LayerWidths(head, 'head') as widths:
        try:
            maps = meta_features(backbone.channels, (_TRIAL_GRID, _TRIAL_GRID), count)
            meta_call(modules, run, maps)
        except Exception as error:
            if not widths.mismatch:
                return
            raise ValueError(
                f'head {type(head).__name__} does not fit the {count} maps of '
                f'{backbone.channels} channels that the backbone delivers: {widths.mismatch}.'
            ) from error
