"""Which parameters a stitch runs, and so trains."""

from __future__ import annotations

from torch import nn

from mmsnnet.stitching import Block, Cross, Embed, Step, Stitch

from .anchors.anchor_vit import AnchorViT
from .stitch_network import StitchNetwork


def parameters_of_route(network: StitchNetwork, stitch: str | int | Stitch) -> list[nn.Parameter]:
    """Parameters that a stitch runs, each once, in the order in which a forward meets them.

    Those that are frozen are among them. Of an anchor with windows the class token is named with
    the embedding although no block sees it.

    Args:
        network: Backbone whose space has the stitch.
        stitch: Its name, id or itself.
    """
    found: dict[nn.Parameter, None] = {}
    for step in network.space.program(stitch):
        found.update(dict.fromkeys(_parameters_of_step(network, step)))
    return list(found)


def _parameters_of_step(network: StitchNetwork, step: Step) -> list[nn.Parameter]:
    """Parameters that one step of a program runs."""
    if isinstance(step, Cross):
        return list(network.stitch_layer(step.layer).parameters())
    anchor = network.anchor(step.anchor)
    if isinstance(step, Embed):
        return _embedding_parameters(anchor)
    if isinstance(step, Block):
        return [*anchor.shared_parameters(), *anchor.vit.blocks[step.index].parameters()]
    parameters = list(anchor.vit.norm.parameters()) if network.space.normed_taps else []
    if step.lift is not None:
        parameters += network.stitch_layer(step.lift).parameters()
    return parameters


def _embedding_parameters(anchor: AnchorViT) -> list[nn.Parameter]:
    """Parameters of an anchor before its blocks; those that all blocks share belong to these."""
    shared = set(anchor.shared_parameters())
    return [
        parameter
        for name, parameter in anchor.vit.named_parameters()
        if name.partition('.')[0] not in ('blocks', 'norm') and parameter not in shared
    ]
