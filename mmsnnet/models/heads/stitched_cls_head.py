"""One classifier for each anchor, for mmpretrain's ``ImageClassifier``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from ..stitch_network import AnchorTokens, StitchNetwork

POOLS = ('token', 'avg')
#: As in the ViTs of timm.
_NORM_EPS = 1e-6


class StitchedClsHead(ClsHead):
    """Classifies by the tokens of the anchor in which a stitch ends, with that anchor's weights.

    It reads the tokens of a ``StitchedViT(lift_taps=False)``, normed by the backbone where its
    anchors end in a norm (``final_norm=True``), and does what heads of timm do: pooling,
    ``fc_norm`` and a linear layer. So each anchor alone, with its own classifier, returns timm's
    logits bit for bit. Choosing the classifier by the last anchor is the authors' way (SN-Netv2,
    arXiv 2307.00154).

    Args:
        num_classes: Number of classes.
        in_channels: Width of each anchor by its label: ``dict(S=384, L=1024)``.
        pool: 'token' takes the class token, 'avg' the mean of the patches.
        fc_norm: Whether a LayerNorm follows the pooling, as in those ViTs of timm that pool by
            'avg' and have no norm behind their blocks.
        loss: Config of the loss; None for cross entropy.
        topk: As of mmpretrain's ClsHead.
        cal_acc: As of mmpretrain's ClsHead.
        init_cfg: MMEngine's.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is not possible.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Mapping[str, int],
        pool: str = 'token',
        fc_norm: bool = False,
        loss: Mapping[str, Any] | nn.Module | None = None,
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        _check(num_classes, in_channels, pool, fc_norm)
        super().__init__(
            loss=dict(type='CrossEntropyLoss', loss_weight=1.0) if loss is None else loss,
            topk=topk,
            cal_acc=cal_acc,
            init_cfg=init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02),
        )
        self.num_classes = num_classes
        self.in_channels = dict(in_channels)
        self.pool = pool
        self.classifiers = nn.ModuleDict(
            {label: nn.Linear(width, num_classes) for label, width in in_channels.items()}
        )
        self.fc_norms = nn.ModuleDict(
            {
                label: nn.LayerNorm(width, eps=_NORM_EPS) if fc_norm else nn.Identity()
                for label, width in in_channels.items()
            }
        )

    def pre_logits(self, feats: Sequence[AnchorTokens]) -> Tensor:
        """What the classifier reads: (B, C), C the width of the anchor in which the stitch ends.

        Args:
            feats: Output of the backbone.
        """
        tokens, anchor, prefix_tokens = _anchor_tokens(feats)
        pooled = tokens[:, 0] if self.pool == 'token' else tokens[:, prefix_tokens:].mean(dim=1)
        return self.fc_norms[anchor](pooled)

    def forward(self, feats: Sequence[AnchorTokens]) -> Tensor:
        """Logits (B, num_classes).

        Args:
            feats: Output of a ``StitchedViT(lift_taps=False)``.

        Raises:
            TypeError: If it is that of another backbone.
        """
        return self.classifiers[_anchor_tokens(feats).anchor](self.pre_logits(feats))

    def anchor_weights(self, label: str) -> dict[str, Tensor]:
        """Parameters of an anchor's classifier by their names in timm (``head.``, ``fc_norm.``)."""
        parts = {'head': self.classifiers[label], 'fc_norm': self.fc_norms[label]}
        return {
            f'{part}.{name}': parameter
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
        }

    def keep_only(self, labels: Collection[str]) -> None:
        """Drop the weights of all anchors but these."""
        for modules in (self.classifiers, self.fc_norms):
            for label in set(modules) - set(labels):
                del modules[label]
        self.in_channels = {
            label: width for label, width in self.in_channels.items() if label in labels
        }

    def check_backbone(self, backbone: StitchNetwork) -> None:
        """Check that the head is made for the anchors of a backbone.

        Raises:
            ValueError: If it is not; the message says what to put.
        """
        space = backbone.space
        if space.lift_taps:
            raise ValueError(
                'StitchedClsHead reads the tokens of the anchor in which a stitch ends: put '
                'backbone.lift_taps=False and '
                f'backbone.out_indices=({space.anchors[-1].depth - 1},).'
            )
        widths = {anchor.label: anchor.width for anchor in space.anchors}
        if widths != self.in_channels:
            pairs = ', '.join(f'{label}={width}' for label, width in widths.items())
            raise ValueError(
                f'head.in_channels={self.in_channels} of StitchedClsHead does not fit the '
                f'anchors of the backbone: put dict({pairs}).'
            )
        if self.pool == 'token' and not space.anchors[-1].prefix_tokens:
            raise ValueError("head.pool='token' needs a class token, anchors have none: put 'avg'.")
        if not space.normed_taps and any(anchor.norm_params for anchor in space.anchors):
            raise ValueError(
                'The anchors end in a norm, which classifiers of StitchedClsHead expect: put '
                'backbone.final_norm=True.'
            )


def _anchor_tokens(feats: Sequence[AnchorTokens]) -> AnchorTokens:
    """Tokens of the last anchor.

    Raises:
        TypeError: If a backbone delivered something else.
    """
    if not isinstance(feats[-1], AnchorTokens):
        raise TypeError(
            'StitchedClsHead reads tokens of an anchor, and the backbone delivers a '
            f'{type(feats[-1]).__name__}: put lift_taps=False into StitchedViT.'
        )
    return feats[-1]


def _check(num_classes: Any, in_channels: Any, pool: Any, fc_norm: Any) -> None:
    """Check arguments.

    Raises:
        TypeError: If one is of another type.
        ValueError: If a value is not possible.
    """
    if not isinstance(in_channels, Mapping) or not in_channels:
        raise TypeError(
            'in_channels of StitchedClsHead must give the width of each anchor by its label, such '
            f'as dict(S=384, L=1024), got {in_channels!r}.'
        )
    for name, value in {'num_classes': num_classes, **in_channels}.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f'{name} of StitchedClsHead must be an integer, got {value!r}.')
        if value < 1:
            raise ValueError(f'{name} of StitchedClsHead must be 1 or more, got {value}.')
    if pool not in POOLS:
        raise ValueError(
            f'pool={pool!r} of StitchedClsHead is unknown: choose one of '
            f'{", ".join(map(repr, POOLS))}.'
        )
    if not isinstance(fc_norm, bool):
        raise TypeError(f'fc_norm of StitchedClsHead must be True or False, got {fc_norm!r}.')
