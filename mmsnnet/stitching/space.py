"""The space of all stitches of a set of anchors."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .alignment import Alignment
from .anchor import AnchorSpec, check_stitchable, label_anchors
from .program import Cross, LayerKey, Step, Tap, compile_program
from .route import Route, enumerate_routes
from .scheme import Scheme, parse_scheme

#: Depths for which the authors published ids, with the id that their numbering leaves out.
_PUBLISHED_DEPTHS = ((12, 12), (12, 24))
_PUBLISHED_GAP = 13


@dataclass(frozen=True)
class Stitch:
    """A route of a space.

    Attributes:
        id: Position in the enumeration of its space.
        name: Blocks run per segment, such as ``S5-L14``; the key of every record.
        family: Labels of the segments, such as ``S-L``.
        route: The segments.
        published_id: Number of the stitch in the authors' files, where these know it.
    """

    id: int
    name: str
    family: str
    route: Route
    published_id: int | None = None

    @property
    def is_anchor(self) -> bool:
        """Whether it runs one anchor alone."""
        return self.route.num_crossings == 0

    def __str__(self) -> str:
        return self.name


def check_taps(taps: Sequence[int], depth: int) -> tuple[int, ...]:
    """Taps as a tuple, checked against the depth of the largest anchor.

    Raises:
        TypeError: If a tap is not an integer.
        ValueError: If there are none, one is outside [0, depth), or they do not increase.
    """
    taps = tuple(taps)
    if not taps:
        raise ValueError('No out_indices given; name at least one block of the largest anchor.')
    for tap in taps:
        if isinstance(tap, bool) or not isinstance(tap, int):
            raise TypeError(f'out_indices must be integers, got {tap!r} in {taps}.')
        if not 0 <= tap < depth:
            raise ValueError(
                f'out_indices {taps} hold {tap}, but the largest anchor has the blocks 0 to '
                f'{depth - 1}.'
            )
    if any(low >= high for low, high in zip(taps, taps[1:])):
        raise ValueError(f'out_indices {taps} must increase strictly.')
    return taps


class StitchSpace:
    """All stitches of anchors that are ordered from cheap to costly.

    Args:
        anchors: Specs from cheap to costly. Missing labels are filled in.
        taps: Blocks of the largest anchor after which features go to the head, increasing.
        scheme: 'two_way', 'one_way', or fields of :class:`~mmsnnet.stitching.Scheme`.
        normed_taps: Whether taps pass the final norm; they then have lifts of their own.
        lift_taps: Whether taps of smaller anchors are lifted to the largest width. Without, the
            one tap is the last block, and the space has no lifts.

    Raises:
        ValueError: If the anchors cannot be stitched, or taps or scheme are not possible.
    """

    def __init__(
        self,
        anchors: Sequence[AnchorSpec],
        taps: Sequence[int],
        scheme: str | Mapping[str, object] | Scheme = 'two_way',
        normed_taps: bool = False,
        lift_taps: bool = True,
    ) -> None:
        self.anchors = label_anchors(anchors)
        check_stitchable(self.anchors)
        self.scheme = parse_scheme(scheme)
        self.normed_taps = normed_taps
        self.labels = tuple(anchor.label for anchor in self.anchors)
        depths = tuple(anchor.depth for anchor in self.anchors)
        self.taps = check_taps(taps, depths[-1])
        self.lift_taps = lift_taps
        if not lift_taps and self.taps != (depths[-1] - 1,):
            raise ValueError(
                f'lift_taps=False hands on the tokens with which a route ends, but out_indices '
                f'are {self.taps}: put out_indices=({depths[-1] - 1},), the last block.'
            )
        self.alignment = Alignment(depths)
        routes = enumerate_routes(depths, self.alignment, self.scheme)
        published = depths in _PUBLISHED_DEPTHS and self.scheme == parse_scheme('two_way')
        self._stitches = tuple(
            Stitch(
                id=number,
                name=route.name(self.labels),
                family=route.family(self.labels),
                route=route,
                published_id=number + (number >= _PUBLISHED_GAP) if published else None,
            )
            for number, route in enumerate(routes)
        )
        self._by_name = {stitch.name: stitch for stitch in self._stitches}
        self._programs: dict[str, tuple[Step, ...]] = {}

    def __len__(self) -> int:
        return len(self._stitches)

    def __iter__(self) -> Iterator[Stitch]:
        return iter(self._stitches)

    def __contains__(self, stitch: object) -> bool:
        if isinstance(stitch, Stitch):
            return self._by_name.get(stitch.name) == stitch
        return stitch in self._by_name

    def __getitem__(self, key: str | int | Stitch) -> Stitch:
        """Stitch by name, by id, or itself.

        Raises:
            TypeError: If ``key`` is of another type.
            ValueError: If the space has no such stitch; the closest names are told.
        """
        if isinstance(key, Stitch):
            key = key.name
        if isinstance(key, str):
            if key not in self._by_name:
                raise ValueError(self._unknown_name(key))
            return self._by_name[key]
        if isinstance(key, bool) or not hasattr(key, '__index__'):
            raise TypeError(f'A stitch is given by name or id, got {key!r}.')
        if not 0 <= key < len(self):
            raise ValueError(f'Unknown stitch id {key}; ids are 0 to {len(self) - 1}.')
        return self._stitches[key]

    def _unknown_name(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._by_name, n=5, cutoff=0.3)
        hint = f'closest names: {", ".join(close)}' if close else 'list them with space.names'
        return (
            f'Unknown stitch {name!r} in a space of {len(self)} stitches of anchors '
            f'{", ".join(f"{a.label}{a.depth}" for a in self.anchors)}; {hint}.'
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all stitches, in the order of their ids."""
        return tuple(self._by_name)

    @cached_property
    def families(self) -> dict[str, tuple[Stitch, ...]]:
        """Stitches of each family, families and stitches in the order of the enumeration."""
        families: dict[str, list[Stitch]] = {}
        for stitch in self._stitches:
            families.setdefault(stitch.family, []).append(stitch)
        return {family: tuple(members) for family, members in families.items()}

    @property
    def anchor_stitches(self) -> tuple[Stitch, ...]:
        """The anchors alone, from cheap to costly."""
        return self._stitches[: len(self.anchors)]

    def by_published_id(self, published_id: int) -> Stitch:
        """Stitch of an id of the authors' files.

        Raises:
            ValueError: If the space has no published ids, or not this one.
        """
        for stitch in self._stitches:
            if stitch.published_id == published_id:
                return stitch
        raise ValueError(
            f'No stitch has the published id {published_id}; they are 0 to 134 without '
            f'{_PUBLISHED_GAP}, in two-way spaces of depths {_PUBLISHED_DEPTHS} alone.'
        )

    def program(self, stitch: str | int | Stitch) -> tuple[Step, ...]:
        """Steps that a stitch executes; see :mod:`mmsnnet.stitching.program`."""
        stitch = self[stitch]
        if stitch.name not in self._programs:
            self._programs[stitch.name] = compile_program(
                stitch.route,
                self.alignment,
                self.taps,
                len(self.anchors) - 1,
                self.normed_taps,
                self.lift_taps,
            )
        return self._programs[stitch.name]

    @cached_property
    def layers(self) -> tuple[LayerKey, ...]:
        """Stitch layers and lifts that some stitch of the space uses, sorted."""
        keys = set()
        for stitch in self._stitches:
            for step in self.program(stitch):
                if isinstance(step, Cross):
                    keys.add(step.layer)
                elif isinstance(step, Tap) and step.lift is not None:
                    keys.add(step.lift)
        return tuple(
            sorted(keys, key=lambda k: (k.lift, k.source, k.target, k.source_boundary))
        )
