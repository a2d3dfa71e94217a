"""Stitched backbones under names of timm: importing this module registers them.

``timm.create_model('stitched_vit_deit3_s_l', pretrained=True, features_only=True)`` gives a
:class:`~mmsnnet.models.StitchedViT` in eval mode, which returns its maps as a tuple. Names of timm
have no slash: it takes those for repositories of the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import register_model

from mmsnnet.models import AnchorConfig, StitchedViT

#: What timm hands to every model and what has no meaning for several anchors.
_OF_TIMM = ('pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir', 'num_classes')


def _create(
    anchors: Sequence[str | Mapping[str, Any]],
    pretrained: bool,
    features_only: bool = True,
    in_chans: int = 3,
    **settings: Any,
) -> StitchedViT:
    """Build what timm asks for.

    Raises:
        ValueError: If a classifier is asked for.
    """
    settings = {key: value for key, value in settings.items() if key not in _OF_TIMM}
    if not features_only:
        raise ValueError(
            'features_only=False is not possible: stitched models of timm return features. '
            'Classifiers have heads for each anchor: StitchedClsHead in MMPretrain.'
        )
    if in_chans != 3:
        parsed = [AnchorConfig.parse(anchor) for anchor in anchors]
        anchors = [
            {**vars(one), 'model_kwargs': {**one.model_kwargs, 'in_chans': in_chans}}
            for one in parsed
        ]
    return StitchedViT.from_timm(*anchors, pretrained=pretrained, **settings)


@register_model
def stitched_vit(pretrained: bool = False, **settings: Any) -> StitchedViT:
    """Any anchors: ``timm.create_model('stitched_vit', anchors=[NAME, NAME])``.

    Raises:
        ValueError: If there are none.
    """
    if not settings.get('anchors'):
        raise ValueError(
            "'stitched_vit' needs anchors: timm.create_model('stitched_vit', anchors=['NAME', "
            "'NAME']), or take one of timm.list_models('stitched_vit_*')."
        )
    return _create(settings.pop('anchors'), pretrained, **settings)


@register_model
def stitched_vit_deit3_s_b(pretrained: bool = False, **settings: Any) -> StitchedViT:
    """DeiT3-S and DeiT3-B."""
    names = [f'deit3_{size}_patch16_224.fb_in22k_ft_in1k' for size in ('small', 'base')]
    return _create(names, pretrained, **settings)


@register_model
def stitched_vit_deit3_s_l(pretrained: bool = False, **settings: Any) -> StitchedViT:
    """DeiT3-S and DeiT3-L, the paper's main pair."""
    names = [f'deit3_{size}_patch16_224.fb_in22k_ft_in1k' for size in ('small', 'large')]
    return _create(names, pretrained, **settings)


@register_model
def stitched_vit_deit3_b_l(pretrained: bool = False, **settings: Any) -> StitchedViT:
    """DeiT3-B and DeiT3-L."""
    names = [f'deit3_{size}_patch16_224.fb_in22k_ft_in1k' for size in ('base', 'large')]
    return _create(names, pretrained, **settings)
