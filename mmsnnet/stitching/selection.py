"""Chooses stitches of a space by a short word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .space import Stitch, StitchSpace


def spread(space: StitchSpace, flops: Mapping[str, int], count: int) -> tuple[Stitch, ...]:
    """Stitches spread evenly over the range of FLOPs, from cheap to costly.

    For each of ``count`` evenly spaced targets the nearest stitch not yet taken is chosen; the
    cheapest and the costliest are always among them (the costliest alone if ``count`` is 1).

    Raises:
        ValueError: If ``count`` is less than 1.
    """
    if count < 1:
        raise ValueError(f"'spread:{count}' is not possible: ask for at least 1 stitch.")
    ordered = sorted(space, key=lambda stitch: (flops[stitch.name], stitch.id))
    low, high = flops[ordered[0].name], flops[ordered[-1].name]
    targets = [high - (high - low) * step / max(count - 1, 1) for step in range(count)]
    # The ends are taken first, so that no inner target can take them.
    targets.sort(key=lambda target: target not in (low, high))
    chosen: set[Stitch] = set()
    for target in targets[: len(ordered)]:
        free = (stitch for stitch in ordered if stitch not in chosen)
        chosen.add(min(free, key=lambda stitch: abs(flops[stitch.name] - target)))
    return tuple(stitch for stitch in ordered if stitch in chosen)


def select_stitches(
    space: StitchSpace, flops: Mapping[str, int], wanted: str | int | Iterable[str | int]
) -> tuple[Stitch, ...]:
    """Stitches by 'all', 'anchors', 'spread:N', a family, names or ids, in one word or a list.

    Args:
        space: Space to choose from.
        flops: FLOPs of each stitch by name, for 'spread:N'.
        wanted: One entry, entries separated by commas, or an iterable of entries.

    Returns:
        The stitches in the order of their ids, each once.

    Raises:
        ValueError: If an entry is unknown or nothing is chosen.
    """
    if isinstance(wanted, str):
        wanted = [entry.strip() for entry in wanted.split(',') if entry.strip()]
    elif isinstance(wanted, int):
        wanted = [wanted]
    chosen: set[Stitch] = set()
    for entry in wanted:
        chosen.update(_select_entry(space, flops, entry))
    if not chosen:
        raise ValueError(
            "No stitches chosen: give 'all', 'anchors', 'spread:N', a family "
            f'({", ".join(space.families)}) or names such as {space[0].name}.'
        )
    return tuple(stitch for stitch in space if stitch in chosen)


def _select_entry(
    space: StitchSpace, flops: Mapping[str, int], entry: str | int
) -> Iterable[Stitch]:
    if entry == 'all':
        return space
    if entry == 'anchors':
        return space.anchor_stitches
    if isinstance(entry, str):
        if entry.startswith('spread:'):
            count = entry[len('spread:') :]
            if not count.isdecimal():
                raise ValueError(f"{entry!r} is not possible: write 'spread:N' with a number N.")
            return spread(space, flops, int(count))
        if entry in space.families and entry not in space:
            return space.families[entry]
        if entry.isdecimal():
            entry = int(entry)  # an id from a command line
    return (space[entry],)
