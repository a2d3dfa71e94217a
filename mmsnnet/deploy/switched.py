"""All stitches of a backbone in one graph, an integer choosing which of them runs.

The blocks of each anchor are cut into units: runs of blocks that any stitch runs either whole or
not at all. Each unit, crossing and tap stands once in the graph, in an order that suits every
route, behind a condition: whether the chosen stitch runs it. A table of conditions, a row for each
stitch, is all that tells stitches apart, so weights are stored once and what a stitch does not
run is not computed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmsnnet.models import StitchedViT
from mmsnnet.models.anchors.lora import unload_lora
from mmsnnet.models.anchors.relative_bias import RelativeBiasAnchor
from mmsnnet.models.host.head_statistics import HeadStatistics
from mmsnnet.models.stitch_layer import StitchLayer
from mmsnnet.models.stitch_network import AnchorTokens
from mmsnnet.stitching import Block, Cross, Embed, Step, StitchSpace, Tap


def plan_units(space: StitchSpace, stitches: Sequence[str]) -> list[tuple[Step, ...]]:
    """Steps of some stitches, cut into units and put into one order.

    Args:
        space: Their space.
        stitches: Names.

    Returns:
        Units: a run of blocks, or one step of another kind. The program of each of the stitches
        is a subsequence of the order, in whole units.
    """
    programs = [space.program(name) for name in stitches]
    users: dict[Step, list[int]] = {}
    for number, program in enumerate(programs):
        for step in program:
            users.setdefault(step, []).append(number)
    ordered = sorted(users, key=lambda step: _place(space, step))
    units: list[list[Step]] = []
    last: dict[int, list[Step]] = {}  # the unit of each anchor that may still grow
    for step in ordered:
        open_unit = last.get(step.anchor) if isinstance(step, Block) else None
        if open_unit is not None and users[open_unit[0]] == users[step]:
            open_unit.append(step)
            continue
        units.append([step])
        if isinstance(step, Block):
            last[step.anchor] = units[-1]
        else:  # it reads or writes the tokens of these anchors between their blocks
            for anchor in _touched(step):
                last.pop(anchor, None)
    return [tuple(unit) for unit in units]


def _place(space: StitchSpace, step: Step) -> tuple[int, ...]:
    """Where a step belongs on the scale of the largest anchor."""
    if isinstance(step, Embed):
        return (0, 0, step.anchor)
    if isinstance(step, Block):  # behind all that leads to the boundary before it
        return (space.alignment.position(step.anchor, step.index), 3, step.anchor, step.index)
    if isinstance(step, Tap):
        block = space.alignment.tap_block(step.anchor, space.taps[step.position])
        return (space.alignment.position(step.anchor, block + 1), 1, step.anchor, step.position)
    layer = step.layer
    boundary = space.alignment.position(layer.target, layer.target_boundary)
    return (boundary, 2, layer.source, layer.target)


def _touched(step: Step) -> tuple[int, ...]:
    if isinstance(step, Cross):
        return step.layer.source, step.layer.target
    return (step.anchor,)


class SwitchedBackbone(nn.Module):
    """A StitchedViT whose stitch is an input, for export.

    It holds copies of what the stitches run, LoRA merged, and nothing else. Its outputs are those
    of the StitchedViT, stitch by stitch. Tokens that are not lifted have another width for each
    anchor, which outputs of one graph cannot have: there the head's logits are the output.

    Args:
        backbone: Fitted backbone, in eval mode.
        stitches: Names of the stitches; the position of each is its number.
        image_size: (height, width) in pixels of the images.
        head: What classifies tokens that are not lifted, a StitchedClsHead; it is left with the
            weights of the anchors in which these stitches end.

    Raises:
        ValueError: If there are no stitches, one twice, one is unknown, or taps are not lifted and
            there is no head.
    """

    def __init__(
        self,
        backbone: StitchedViT,
        stitches: Iterable[str],
        image_size: tuple[int, int],
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(backbone.space[name].name for name in stitches)
        if not backbone.space.lift_taps and head is None:
            raise ValueError(
                'A graph of several stitches needs outputs of one shape, and with lift_taps=False '
                'that of each stitch is that of its last anchor: give the head that classifies '
                'them, or extract one stitch.'
            )
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f'Stitches must be named, each once; got {list(self.names)}.')
        space = backbone.space
        self.units = plan_units(space, self.names)
        steps = [step for unit in self.units for step in unit]
        self.network = pruned(backbone, steps)
        self.head = head
        if head is not None:
            head.keep_only({space.labels[s.anchor] for s in steps if isinstance(s, Tap)})
        self.grid = tuple(-(-side // backbone.patch_size) for side in image_size)
        fix_grids(self.network, image_size)
        programs = [set(space.program(name)) for name in self.names]
        table = [[unit[0] in program for unit in self.units] for program in programs]
        self.register_buffer('plan', torch.tensor(table), persistent=False)

    def forward(self, images: Tensor, stitch: Tensor) -> tuple[Any, ...]:
        """Features of a stitch.

        Args:
            images: Normalised images (B, C, H, W) of the size given.
            stitch: Number of the stitch, int64 without dimensions.

        Returns:
            As StitchedViT; with a head its logits (B, classes) alone.
        """
        row = select_row(self.plan, stitch)
        batch, anchors = images.shape[0], self.network.space.anchors
        length = self.grid[0] * self.grid[1] + anchors[-1].prefix_tokens
        tokens = [images.new_zeros(batch, length, anchor.width) for anchor in anchors]
        shape = (length, anchors[-1].width) if self.head is None else (self.head.num_classes,)
        taps = [images.new_zeros(batch, *shape) for _ in self.network.space.taps]
        contexts = {
            number: self.network.anchor(number).context(self.grid)
            for number, label in enumerate(self.network.space.labels)
            if label in self.network.anchors
        }
        for number, unit in enumerate(self.units):
            # A copy: the exporter cannot carry the offset of a view into a branch.
            runs = row.select(0, number).clone()
            self._run_unit(unit, runs, images, tokens, taps, contexts)
        return self._as_features(taps)

    def _run_unit(
        self,
        unit: Sequence[Step],
        runs: Tensor,
        images: Tensor,
        tokens: list[Tensor],
        taps: list[Tensor],
        contexts: dict[int, Any],
    ) -> None:
        """Put into the lists what a unit makes of the tokens, where its condition holds."""
        network, step = self.network, unit[0]
        if isinstance(step, Embed):
            embed = network.anchor(step.anchor).embed
            tokens[step.anchor] = _where(runs, embed, images, tokens[step.anchor])
        elif isinstance(step, Block):
            run, here = _run_blocks(network, unit, contexts[step.anchor]), tokens[step.anchor]
            tokens[step.anchor] = _where(runs, run, here, here)
        elif isinstance(step, Cross):
            source, target = step.layer.source, step.layer.target
            layer = network.stitch_layer(step.layer)
            tokens[target] = _where(runs, layer, tokens[source], tokens[target])
        else:
            here, take = tokens[step.anchor], _take_tap(network, step, self.head)
            taps[step.position] = _where(runs, take, here, taps[step.position])

    def _as_features(self, taps: Sequence[Tensor]) -> tuple[Any, ...]:
        """Maps (B, C, rows, columns), or pairs with the class token, of the taps' tokens.

        What a head made of them stays as it is.
        """
        if self.head is not None:
            return tuple(taps)
        prefix = self.network.space.anchors[-1].prefix_tokens
        features = []
        for tap in taps:
            maps = tap[:, prefix:].unflatten(1, self.grid).permute(0, 3, 1, 2).contiguous()
            features.append((maps, tap[:, 0]) if self.network.output_cls_token else maps)
        return tuple(features)


def _where(runs: Tensor, call: Any, given: Tensor, former: Tensor) -> Tensor:
    """``call(given)`` where the condition holds, else the former value."""
    if given is former:  # no branch may be given the same tensor twice
        return torch.cond(runs, call, torch.clone, (given,))
    return torch.cond(
        runs, lambda given, _: call(given), lambda _, former: former.clone(), (given, former)
    )


def _run_blocks(network: StitchedViT, unit: Sequence[Block], context: Any) -> Any:
    anchor = network.anchor(unit[0].anchor)

    def run(tokens: Tensor) -> Tensor:
        for block in unit:
            tokens = anchor.run_block(tokens, block.index, context)
        return tokens

    return run


def _take_tap(network: StitchedViT, step: Tap, head: nn.Module | None) -> Any:
    anchor, spec = network.anchor(step.anchor), network.space.anchors[step.anchor]

    def take(tokens: Tensor) -> Tensor:
        if network.space.normed_taps:
            tokens = anchor.norm(tokens)
        if head is not None:
            return head((AnchorTokens(tokens, spec.label, spec.prefix_tokens),))
        return tokens.clone() if step.lift is None else network.stitch_layer(step.lift)(tokens)

    return take


def select_row(table: Tensor, stitch: Tensor) -> Tensor:
    """Row of a table (stitches, ...) by the number of a stitch.

    ONNX counts negative numbers from the end; here they lead past it, which no runtime takes.
    """
    number = torch.where(stitch < 0, len(table), stitch)
    return table.index_select(0, number.reshape(1)).squeeze(0)


def pruned(backbone: StitchedViT, steps: Sequence[Step]) -> StitchedViT:
    """A copy of a backbone with what some steps need, its stitch layers merged."""
    network = copy.deepcopy(backbone)
    used, space = set(steps), backbone.space
    for number, label in enumerate(space.labels):
        blocks = {s.index for s in used if isinstance(s, Block) and s.anchor == number}
        taps = any(isinstance(s, Tap) and s.anchor == number for s in used)
        if not blocks:
            del network.anchors[label]
            continue
        unload_lora(network.anchors[label].vit)
        network.anchors[label].keep_only(
            blocks, embedding=Embed(number) in used, norm=space.normed_taps and taps
        )
    keys = {s.layer for s in used if isinstance(s, Cross)}
    keys |= {s.lift for s in used if isinstance(s, Tap)} - {None}
    network.stitch_layers = nn.ModuleDict(
        {
            key.name(space.labels): _merged(backbone.stitch_layer(key))
            for key in space.layers
            if key in keys
        }
    )
    return network.eval()


def fix_grids(network: StitchedViT, image_size: tuple[int, int]) -> None:
    """Let anchors that resample tables as they run do so now, for images (height, width) in px."""
    grid = tuple(-(-side // network.patch_size) for side in image_size)
    for anchor in network.anchors.values():
        if isinstance(anchor, RelativeBiasAnchor):
            anchor.fix_grid(grid)


def _merged(layer: StitchLayer) -> StitchLayer:
    """A stitch layer as one affine map."""
    merged = StitchLayer(layer.in_features, layer.out_features, rank=0)
    merged.set_affine(layer.merged_weight(), layer.bias.detach())
    return merged


class SwitchedNorm(nn.Module):
    """A batch norm in eval mode with running statistics for each stitch.

    Args:
        norm: The norm.
        means: Means (stitches, channels).
        variances: Variances (stitches, channels).
        choice: Holds the number of the stitch that runs as ``choice.stitch``.
    """

    def __init__(
        self, norm: nn.Module, means: Tensor, variances: Tensor, choice: StitchChoice
    ) -> None:
        super().__init__()
        scale = torch.rsqrt(variances.double() + norm.eps)
        shift = -means.double() * scale
        if norm.affine:
            scale = scale * norm.weight.detach().double()
            shift = shift * norm.weight.detach().double() + norm.bias.detach().double()
        self.register_buffer('scale', scale.float(), persistent=False)
        self.register_buffer('shift', shift.float(), persistent=False)
        self._choice = choice

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features (B, C, ...)."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale = select_row(self.scale, self._choice.stitch).reshape(shape)
        return x * scale + select_row(self.shift, self._choice.stitch).reshape(shape)


class StitchChoice:
    """The number of the stitch that runs, for modules that are not called with it.

    Attributes:
        stitch: It, int64 without dimensions.
    """

    stitch: Tensor | None = None


def switch_norms(
    model: nn.Module, norms: dict[str, nn.Module], statistics: HeadStatistics, names: Sequence[str]
) -> StitchChoice:
    """Replace norms of a model by ones that take the statistics of the stitch that runs.

    Args:
        model: Model; it is changed.
        norms: Its head norms by name.
        statistics: Statistics; a stitch without some takes the common ones.
        names: Names of the stitches by number.

    Returns:
        What tells the norms which stitch runs.
    """
    choice = StitchChoice()
    for name, norm in norms.items():
        table_means, table_variances = statistics.tables[name]
        rows = [statistics.names.index(one) if one in statistics.names else None for one in names]
        means = [norm.running_mean if row is None else table_means[row] for row in rows]
        variances = [norm.running_var if row is None else table_variances[row] for row in rows]
        parent, _, child = name.rpartition('.')
        switched = SwitchedNorm(norm, torch.stack(means), torch.stack(variances), choice)
        setattr(model.get_submodule(parent), child, switched)
    return choice
