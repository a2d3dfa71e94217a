"""How deep in the network each weight of a stitched backbone lies."""

from __future__ import annotations

from mmsnnet.stitching import LayerKey

from .stitch_network import StitchNetwork


def layer_depth(network: StitchNetwork, name: str) -> tuple[int, int]:
    """Depth of a parameter on the scale of the largest anchor, and the number of depths.

    For a largest anchor of D blocks there are D + 2 depths: embeddings have 0, block i of the
    largest anchor has i + 1, and all that follows the last block, such as heads, D + 1 (as in
    BEiT's layer-wise decay, arXiv 2106.08254). The anchors share this scale:

    - Block j of a smaller anchor takes the place of the blocks [p(j), p(j + 1)) of the largest,
      p being the alignment of its boundaries, and has the depth p(j + 1) of the last of these.
      So ``frozen_stages=n`` freezes the depths 0 to n, and depth increases along every anchor.
    - A stitch layer has the depth of the block it leads into. A lift has that of the block of the
      largest anchor behind the tap: it is the stitch layer into it where features can cross, and
      behind the last block it belongs to the heads.

    Args:
        network: Backbone of the parameter.
        name: Name of the parameter within the network, ``anchors.S.vit.blocks.3.ls1.gamma``.

    Returns:
        Depth, and number of depths. All parameters of a network get the same number.

    Raises:
        ValueError: If the name is of none of the parts of a stitched backbone.
    """
    depth = network.space.anchors[-1].depth
    part, _, rest = name.partition('.')
    owner, _, inner = rest.partition('.')
    if part == 'anchors' and owner in network.space.labels:
        return _anchor_depth(network, network.space.labels.index(owner), inner), depth + 2
    keys = {key.name(network.space.labels): key for key in network.space.layers}
    if part == 'stitch_layers' and owner in keys:
        return _layer_depth(network, keys[owner]), depth + 2
    raise ValueError(
        f'{name!r} is no parameter of this backbone; names begin with anchors.LABEL (LABEL of '
        f'{", ".join(network.space.labels)}) or stitch_layers.NAME.'
    )


def _anchor_depth(network: StitchNetwork, anchor: int, name: str) -> int:
    """Depth of a parameter of an anchor, named within it."""
    parts = name.split('.')
    if parts[:2] == ['vit', 'blocks']:
        return network.space.alignment.position(anchor, int(parts[2]) + 1)
    if parts[:2] == ['vit', 'norm']:  # the final one
        return network.space.anchors[-1].depth + 1
    return 0


def _layer_depth(network: StitchNetwork, key: LayerKey) -> int:
    """Depth of the block behind the boundary that a stitch layer or lift leads to."""
    if key.target_boundary == network.space.anchors[key.target].depth:
        return network.space.anchors[-1].depth + 1
    return network.space.alignment.position(key.target, key.target_boundary + 1)
