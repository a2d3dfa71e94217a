"""Components that every stitch is made of, and how often it runs each.

Steps of a program that do the same work are instances of one component: all blocks of an anchor,
say. A measurement of few stitches that together run every component then serves all stitches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from mmsnnet.stitching import Block, Cross, Embed, Step, Stitch, StitchSpace

#: Everything of an inference but the steps of the backbone: head, resizing, windows, results.
REST = 'rest'


def component_of(space: StitchSpace, step: Step) -> str:
    """Name of the component that a step is an instance of.

    Components are the embedding of an anchor (``embed S``), its blocks (``block S``, with the
    number of the first block of its shape behind if shapes differ: ``block S.4``), what its taps
    take (``tap S``) and crossings from one anchor to another (``cross S-L``).
    """
    labels = space.labels
    if isinstance(step, Cross):
        return f'cross {labels[step.layer.source]}-{labels[step.layer.target]}'
    label = labels[step.anchor]
    if isinstance(step, Embed):
        return f'embed {label}'
    if not isinstance(step, Block):
        return f'tap {label}'
    blocks = space.anchors[step.anchor].blocks
    first = blocks.index(blocks[step.index])
    return f'block {label}.{first}' if len(set(blocks)) > 1 else f'block {label}'


def context_of(component: str) -> str:
    """``context S`` of ``block S``: what its blocks need besides tokens, e.g. a position bias."""
    # Labels are names of submodules and cannot contain a dot.
    return 'context' + component.removeprefix('block').split('.')[0]


def count_components(space: StitchSpace, stitch: Stitch | str) -> Counter[str]:
    """How often a stitch runs each component in one pass of the backbone.

    ``context S`` is what the blocks of an anchor need besides tokens, computed once a pass.
    """
    steps = space.program(stitch)
    counts = Counter(component_of(space, step) for step in steps)
    for anchor in {step.anchor for step in steps if isinstance(step, Block)}:
        counts[f'context {space.labels[anchor]}'] = 1
    return counts


def covering_stitches(space: StitchSpace) -> list[Stitch]:
    """Few stitches that together run every component of the space, chosen greedily."""
    counts = {stitch.name: count_components(space, stitch) for stitch in space}
    missing = {name for components in counts.values() for name in components}
    chosen = list(space.anchor_stitches)
    for stitch in chosen:
        missing -= counts[stitch.name].keys()
    while missing:
        best = max(space, key=lambda stitch: len(missing & counts[stitch.name].keys()))
        chosen.append(best)
        missing -= counts[best.name].keys()
    return chosen


def stretches(space: StitchSpace, program: Sequence[Step]) -> Iterator[tuple[str, list[Step]]]:
    """Maximal runs of steps of one component, in order, each with the component's name."""
    for name, steps in groupby(program, key=lambda step: component_of(space, step)):
        yield name, list(steps)
