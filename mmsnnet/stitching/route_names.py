"""Routes read back from the names of stitches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .alignment import Alignment
from .route import Route, Segment


def parse_name(name: str, family: str) -> list[tuple[str, int]]:
    """Label and number of blocks of each segment of a name such as ``S5-L14``.

    Args:
        name: Name of a stitch.
        family: Its labels in order, such as ``S-L``.

    Raises:
        ValueError: If name and family do not fit together.
    """
    labels, parts = family.split('-'), name.split('-')
    fitting = len(labels) == len(parts) and all(
        part.startswith(label) and part[len(label) :].isdecimal()
        for label, part in zip(labels, parts)
    )
    if not fitting:
        raise ValueError(f'{name!r} is not the name of a stitch of the family {family!r}.')
    return [(label, int(part[len(label) :])) for label, part in zip(labels, parts)]


def route_of_name(name: str, family: str, labels: Sequence[str], depths: Sequence[int]) -> Route:
    """Route of a stitch by its name.

    Args:
        name: Name of the stitch.
        family: Its labels in order.
        labels: Labels of the anchors from cheap to costly.
        depths: Their numbers of blocks, non-decreasing.

    Raises:
        ValueError: If these anchors have no such route.
    """
    alignment = Alignment(depths)
    segments: list[Segment] = []
    for label, count in parse_name(name, family):
        if label not in labels:
            raise ValueError(f'{name!r} runs {label!r}, which is none of {list(labels)}.')
        anchor = labels.index(label)
        start: int | None = 0
        if segments:
            start = alignment.facing(segments[-1].anchor, segments[-1].stop, anchor)
        if start is None or start + count > depths[anchor]:
            raise ValueError(f'{name!r} is no route of anchors of {list(depths)} blocks.')
        segments.append(Segment(anchor, start, start + count))
    if segments[-1].stop != depths[segments[-1].anchor]:
        raise ValueError(f'{name!r} is no route of anchors of {list(depths)} blocks.')
    return Route(tuple(segments))


def anchors_of_names(families: Mapping[str, str]) -> dict[str, int]:
    """Blocks of each anchor by label, of the stitches that are anchors alone.

    Args:
        families: Family of each stitch by name.
    """
    alone = ((name, family) for name, family in families.items() if '-' not in family)
    return dict(parse_name(name, family)[0] for name, family in alone)
