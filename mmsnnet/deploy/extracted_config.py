"""The config of one stitch, derived from that of a stitched model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from mmengine.config import Config

from mmsnnet.models import StitchedViT
from mmsnnet.models.anchors.anchor_config import AnchorConfig

#: Arguments of a StitchedViT that a FixedStitchedViT has too.
_SHARED = (
    'img_size', 'out_indices', 'scheme', 'final_norm', 'output_cls_token', 'window_size',
    'global_blocks', 'drop_path_rate', 'with_cp', 'lift_taps',
)  # fmt: skip
_NAMES = ('StitchedViT', 'StitchedViTBackbone')
#: What serves training alone, or many stitches: an extracted model is there to be run.
_TRAINING = (
    'train_dataloader', 'train_cfg', 'train_pipeline', 'optim_wrapper', 'optimizer',
    'param_scheduler', 'auto_scale_lr', 'load_from',
)  # fmt: skip


def extracted_config(cfg: Config, backbone: StitchedViT, stitch: str) -> Config:
    """Config of a model that runs one stitch alone; it stands by itself, without bases.

    Auxiliary heads, which no inference runs, and what trains are left out. Loops over stitches
    become the ordinary ones of MMEngine.

    Args:
        cfg: Config of the stitched model; it is left as it is.
        backbone: Backbone that was built from it.
        stitch: Name of the stitch.

    Raises:
        ValueError: If the config does not have exactly one stitched backbone.
    """
    content = copy.deepcopy(_plain(cfg))
    found = list(_stitched_dicts(content['model']))
    if len(found) != 1:
        raise ValueError(
            f'The config names {len(found)} StitchedViT backbones; extracting a stitch needs '
            'exactly one.'
        )
    fixed = _fixed_backbone(found[0], backbone, stitch)
    found[0].clear()
    found[0].update(fixed)
    model = content['model']
    for key in ('auxiliary_head', 'pretrained', 'init_cfg'):
        model.pop(key, None)
    if content.get('data_preprocessor') is not None:  # as MMEngine's Runner does
        model.setdefault('data_preprocessor', content['data_preprocessor'])
    if not backbone.space.lift_taps:
        _keep_classifier(model, backbone, stitch)
    for key in _TRAINING:
        content.pop(key, None)
    _leave_stitches(content)
    imports = content.setdefault('custom_imports', dict(imports=[], allow_failed_imports=False))
    imports['imports'] = sorted({*_as_list(imports['imports']), 'mmsnnet'})
    return Config(content)


def _leave_stitches(content: dict[str, Any]) -> None:
    """Take what deals with many stitches out of hooks and loops."""
    content['resume'] = False
    hooks = content.pop('custom_hooks', None) or []
    content['custom_hooks'] = [hook for hook in hooks if not _is_ours(hook)]
    for key, loop in (('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        if content.get(key) is not None and _is_ours(content[key]):
            content[key] = dict(type=loop)
    checkpoint_hook = (content.get('default_hooks') or {}).get('checkpoint')
    if isinstance(checkpoint_hook, MutableMapping):
        checkpoint_hook.pop('save_best', None)
        checkpoint_hook.pop('rule', None)


def _plain(cfg: Config) -> dict[str, Any]:
    """Content of a config as dicts, lists and values, types given as classes by their names."""
    return _named(cfg.to_dict())


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_named(item) for item in value)
    if isinstance(value, type) or callable(value):
        return f'{value.__module__}.{value.__qualname__}'
    return value


def _stitched_dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Dicts in a config that describe a StitchedViT."""
    if isinstance(value, dict):
        if str(value.get('type')).rsplit('.', 1)[-1] in _NAMES:
            yield value
            return
        for item in value.values():
            yield from _stitched_dicts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _stitched_dicts(item)


def _fixed_backbone(
    settings: Mapping[str, Any], backbone: StitchedViT, stitch: str
) -> dict[str, Any]:
    """Settings of the FixedStitchedViT of a stitch."""
    anchors = []
    for label, anchor in backbone.anchors.items():
        plain = AnchorConfig(anchor.config.model_name)
        known = dataclasses.replace(anchor.config, checkpoint=None, checkpoint_prefix='')
        given = {
            one.name: _named(getattr(known, one.name))
            for one in dataclasses.fields(known)
            if getattr(known, one.name) != getattr(plain, one.name)
        }
        anchors.append(
            dict(model_name=plain.model_name) | given | dict(label=label, pretrained=False)
        )
    return {
        'type': 'FixedStitchedViT',
        'anchors': anchors,
        'stitch': stitch,
        **{key: settings[key] for key in _SHARED if key in settings},
    }


def _keep_classifier(model: dict[str, Any], backbone: StitchedViT, stitch: str) -> None:
    """Leave a StitchedClsHead the classifier of the anchor in which a stitch ends."""
    last = backbone.space.anchors[backbone.space[stitch].route.anchors[-1]]
    model['head']['in_channels'] = {last.label: last.width}
    model.pop('train_cfg', None)  # augmentations of whole batches


def _is_ours(settings: Any) -> bool:
    """Whether a hook or loop is one of mmsnnet, which deal with many stitches."""
    kind = settings.get('type') if isinstance(settings, Mapping) else type(settings).__name__
    name = str(kind).rsplit('.', 1)[-1]
    return name.startswith('Stitch') or 'mmsnnet' in str(kind)


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)
