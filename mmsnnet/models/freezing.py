"""Which parts of a stitched backbone are frozen."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .stitch_network import StitchNetwork


def check_frozen_stages(network: StitchNetwork, frozen_stages: int) -> None:
    """Check a number of frozen stages.

    Raises:
        ValueError: If it is not -1 or between 0 and the depth of the largest anchor.
    """
    depth = network.space.anchors[-1].depth
    if not -1 <= frozen_stages <= depth:
        raise ValueError(
            f'frozen_stages={frozen_stages} is not possible: -1 freezes nothing, 0 the '
            f'embeddings, 1 to {depth} also as many blocks of the largest anchor.'
        )


def frozen_modules(network: StitchNetwork, frozen_stages: int) -> Iterator[nn.Module]:
    """Modules with all their weights frozen: embeddings, then blocks that lie before a place.

    A block of a smaller anchor is frozen if it ends at or before block ``frozen_stages`` on the
    scale of the largest anchor.
    """
    if frozen_stages < 0:
        return
    for number, anchor in enumerate(network.anchors.values()):
        yield anchor.vit.patch_embed
        if hasattr(anchor.vit, 'norm_pre'):
            yield anchor.vit.norm_pre
        yield anchor.vit.pos_drop
        for index, block in enumerate(anchor.vit.blocks):
            if network.space.alignment.position(number, index + 1) <= frozen_stages:
                yield block


def frozen_tokens(network: StitchNetwork, frozen_stages: int) -> Iterator[nn.Parameter]:
    """Parameters of the embeddings that stand in no module that :func:`frozen_modules` names.

    Positions that all blocks share (a table of bias, rotary frequencies) are among them.
    """
    if frozen_stages < 0:
        return
    for anchor in network.anchors.values():
        for name in ('cls_token', 'reg_token', 'dist_token', 'pos_embed'):
            parameter = getattr(anchor.vit, name, None)
            if parameter is not None:
                yield parameter
        yield from anchor.shared_parameters()


def freeze(network: StitchNetwork, frozen_stages: int) -> None:
    """Exclude the frozen weights from training.

    Raises:
        ValueError: If there cannot be as many frozen stages.
    """
    check_frozen_stages(network, frozen_stages)
    for module in frozen_modules(network, frozen_stages):
        module.requires_grad_(False)
    for parameter in frozen_tokens(network, frozen_stages):
        parameter.requires_grad_(False)
