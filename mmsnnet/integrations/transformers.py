"""Stitched backbones as backbones of Hugging Face transformers (extra ``transformers``).

Importing this module registers ``StitchedViTConfig`` and ``StitchedViTBackbone`` with
``AutoConfig`` and ``AutoBackbone``, so that models of the library with a ``backbone_config``, such
as ``UperNetForSemanticSegmentation``, take them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from mmsnnet.models import StitchedViT
from mmsnnet.models.hub_config import arguments_of, arguments_of_json
from mmsnnet.stitching import Stitch


class StitchedViTConfig(BackboneConfigMixin, PretrainedConfig):
    """Arguments of a StitchedViT, as JSON can say them.

    Args:
        arguments: As ``mmsnnet.models.hub_config.arguments_of`` gives them.
        num_outputs: Outputs of the backbone, stages 1 to that number.
        out_features: Names of the stages to return, ``'stage1'``, ...
        out_indices: Their numbers; by default all but 0, which is no output but stands for the
            stem, as the library counts.
        more: Further arguments of the library.
    """

    model_type = 'stitched_vit'

    def __init__(
        self,
        arguments: dict[str, Any] | None = None,
        num_outputs: int = 4,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **more: Any,
    ) -> None:
        more.pop('stage_names', None)
        super().__init__(**more)
        self.arguments = arguments or {}
        self.num_outputs = num_outputs
        self.stage_names = ['stem'] + [f'stage{number + 1}' for number in range(num_outputs)]
        if out_features is None and out_indices is None:
            out_indices = list(range(1, num_outputs + 1))
        self.set_output_features_output_indices(out_features, out_indices)


class StitchedViTBackbone(BackboneMixin, PreTrainedModel):
    """A StitchedViT with ``feature_maps``, ``channels`` and ``out_features``.

    Args:
        config: Its config.
        backbone: The backbone itself; None builds one of the config, to be filled by
            ``from_pretrained`` of this class.

    Raises:
        ValueError: If the stem is asked for, which is no output of a stitched backbone.
    """

    config_class = StitchedViTConfig
    base_model_prefix = 'backbone'
    main_input_name = 'pixel_values'
    has_attentions = False

    def __init__(self, config: StitchedViTConfig, backbone: StitchedViT | None = None) -> None:
        super().__init__(config)
        if 0 in config.out_indices:
            raise ValueError('out_indices must not hold 0: a stitched backbone returns no stem.')
        if backbone is None:
            backbone = StitchedViT(**arguments_of_json(config.arguments, 'The config'))
            backbone.skip_anchor_weights()
        self.backbone = backbone
        self.num_features = [backbone.channels] * (config.num_outputs + 1)
        self.post_init()

    @classmethod
    def from_backbone(
        cls, backbone: StitchedViT, out_indices: list[int] | None = None
    ) -> StitchedViTBackbone:
        """Wrap a backbone, with its weights.

        Args:
            backbone: The backbone.
            out_indices: Stages to return, from 1; None for all.
        """
        config = StitchedViTConfig(
            arguments_of(backbone), len(backbone.space.taps), out_indices=out_indices
        )
        return cls(config, backbone)

    def set_stitch(self, stitch: str | int | Stitch) -> None:
        """Choose what eval runs; the config, and so a saved folder, keeps it."""
        self.backbone.set_stitch(stitch)
        self.config.arguments['stitch'] = self.backbone.stitch.name

    def _init_weights(self, module: nn.Module) -> None:
        """Compute what no file holds, such as rotary frequencies, and draw nothing.

        The library builds models that it is about to load without memory, so that whatever a
        constructor puts into buffers that are not saved is lost.
        """
        if hasattr(module, 'init_non_persistent_buffers'):  # of timm
            module.init_non_persistent_buffers()

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None, **unused: Any
    ) -> BackboneOutput | tuple:
        """Maps (B, C, H/patch, W/patch) of the chosen stages, from images (B, 3, H, W)."""
        maps = self.backbone(pixel_values)
        chosen = tuple(maps[number - 1] for number in self.config.out_indices)
        if return_dict is False:
            return (chosen,)
        return BackboneOutput(feature_maps=chosen)


AutoConfig.register('stitched_vit', StitchedViTConfig, exist_ok=True)
AutoBackbone.register(StitchedViTConfig, StitchedViTBackbone, exist_ok=True)
