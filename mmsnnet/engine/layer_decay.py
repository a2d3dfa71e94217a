"""Layer-wise decay of the learning rate for models with a stitched backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmsnnet.models import StitchedViT, find_stitched_backbone
from mmsnnet.registry import OPTIM_WRAPPER_CONSTRUCTORS

_OPTIONS = ('decay_rate', 'num_layers', 'head_lr_mult', 'custom_keys')

#: Last parts of names of parameters that shift or bias what passes, whatever their number of
#: dimensions. A table of relative positions is a bias of attention.
_UNDECAYED = (
    'bias',
    'pos_embed',
    'cls_token',
    'reg_token',
    'dist_token',
    'mask_token',
    'relative_position_bias_table',
    'rel_pos_h',
    'rel_pos_w',
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StitchLayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall from the head to the embeddings (BEiT, arXiv 2106.08254).

    A parameter of depth d out of n has the learning rate ``lr * decay_rate ** (n - 1 - d)``;
    :meth:`mmsnnet.models.StitchedViT.get_layer_depth` says the depths, one scale for all anchors.
    What is outside the backbone has ``lr * head_lr_mult``. Weights have the optimizer's weight
    decay; norms, biases, layer scales, tokens, position embeddings and tables of relative
    positions have none. Frozen parameters are left out. ::

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
            constructor='StitchLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.95),
        )

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper, ``optimizer`` with ``lr`` in it.
        paramwise_cfg: ``decay_rate``, in (0, 1]; ``num_layers``, which is found by itself, but
            if given must be the depth of the largest anchor; ``head_lr_mult`` (default 1); and
            ``custom_keys``, a dict from parts of parameter names to dicts. Of the keys that a
            name contains the longest counts (the first in the alphabet of several): its
            ``lr_mult`` multiplies the learning rate, its ``decay_mult`` replaces the rules above
            by that multiple of the weight decay, and other entries go to the parameter group.

    Raises:
        TypeError: If ``paramwise_cfg`` or ``custom_keys`` is not a dict.
        ValueError: If an option is unknown or its value not possible, or the optimizer has no lr.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - set(_OPTIONS))
        if unknown:
            raise ValueError(
                f'paramwise_cfg of {type(self).__name__} does not know {", ".join(unknown)}; it '
                f'takes {", ".join(_OPTIONS)}. Norms and biases have no weight decay as it is; '
                "options of an inherited config go with paramwise_cfg=dict(_delete_=True, ...)."
            )
        if self.base_lr is None:
            raise ValueError('The optimizer needs an lr that layer-wise decay starts from.')
        rate = self.paramwise_cfg.get('decay_rate')
        if not _is_number(rate) or not 0 < rate <= 1:
            raise ValueError(
                f'decay_rate={rate!r} of paramwise_cfg is not possible: it must be in (0, 1], '
                'where 1 means the same learning rate for all depths.'
            )
        multiple = self.paramwise_cfg.get('head_lr_mult', 1.0)
        if not _is_number(multiple) or multiple <= 0:
            raise ValueError(f'head_lr_mult={multiple!r} of paramwise_cfg must be positive.')

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **options: Any) -> None:
        """Append one parameter group for each learning rate and weight decay.

        Args:
            params: List to append to, groups in the order of the parameters.
            module: Model with one StitchedViT.
            options: Unused; MMEngine passes its own in recursion.

        Raises:
            ValueError: If the model has no stitched backbone, or ``num_layers`` is another depth.
        """
        backbone = find_stitched_backbone(module)
        self._check_num_layers(backbone.space.anchors[-1].depth)
        own = {id(parameter): name for name, parameter in backbone.named_parameters()}
        undecayed = _names_without_decay(backbone)
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            flat = parameter.ndim == 1 or name.rpartition('.')[2] in _UNDECAYED
            scale = self.paramwise_cfg.get('head_lr_mult', 1.0)
            if id(parameter) in own:
                inner = own[id(parameter)]
                flat = flat or inner in undecayed
                depth, count = backbone.get_layer_depth(inner)
                scale = self.paramwise_cfg['decay_rate'] ** (count - 1 - depth)
            settings = self._settings(name, scale, decayed=not flat)
            group = groups.setdefault(repr(sorted(settings.items())), dict(params=[], **settings))
            group['params'].append(parameter)
        params.extend(groups.values())
        rates = [group['lr'] for group in groups.values()]
        print_log(
            f'Layer-wise decay: {len(groups)} groups of parameters with learning rates from '
            f'{min(rates):.3g} to {max(rates):.3g}.',
            logger='current',
        )

    def _settings(self, name: str, scale: float, decayed: bool) -> dict[str, Any]:
        """Settings of the group of a parameter."""
        custom = self._custom_settings(name)
        scale *= custom.pop('lr_mult', 1.0)
        settings = dict(lr=self.base_lr * scale, lr_scale=scale)
        decay = custom.pop('decay_mult', 1.0 if decayed else 0.0)
        if self.base_wd is not None:
            settings['weight_decay'] = self.base_wd * decay
        return settings | custom

    def _custom_settings(self, name: str) -> dict[str, Any]:
        """Entries of the longest of ``custom_keys`` that is part of a name."""
        keys: Mapping[str, Mapping[str, Any]] = self.paramwise_cfg.get('custom_keys', {})
        matching = sorted((key for key in keys if key in name), key=lambda key: (-len(key), key))
        return dict(keys[matching[0]]) if matching else {}

    def _check_num_layers(self, depth: int) -> None:
        """Refuse the depth of another backbone, which inherited configs bring along."""
        given = self.paramwise_cfg.get('num_layers')
        if given not in (None, depth):
            raise ValueError(
                f'num_layers={given!r} of paramwise_cfg is not the depth of the largest anchor, '
                f'{depth}: leave num_layers out.'
            )


def _names_without_decay(backbone: StitchedViT) -> set[str]:
    """Names within a backbone of the parameters that timm exempts from weight decay."""
    return {
        f'anchors.{label}.vit.{name}'
        for label, anchor in backbone.anchors.items()
        for name in anchor.vit.no_weight_decay()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
