"""Which routes a space holds: how many crossings, in which direction, between whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

DIRECTIONS = ('both', 'up', 'down')
PAIRS = ('neighbors', 'all')


@dataclass(frozen=True)
class Scheme:
    """Rule that a route must meet.

    Attributes:
        max_crossings: Most crossings of a route; 0 leaves the anchors alone.
        directions: 'both', 'up' (cheap to costly only) or 'down' (costly to cheap only).
        pairs: With three or more anchors: 'neighbors' in cost may cross, or 'all' pairs.

    Raises:
        TypeError: If ``max_crossings`` is not an integer.
        ValueError: If a value is not one of those above.
    """

    max_crossings: int = 2
    directions: str = 'both'
    pairs: str = 'neighbors'

    def __post_init__(self) -> None:
        if isinstance(self.max_crossings, bool) or not isinstance(self.max_crossings, int):
            raise TypeError(f'max_crossings must be an integer, got {self.max_crossings!r}.')
        if self.max_crossings < 0:
            raise ValueError(f'max_crossings must be 0 or more, got {self.max_crossings}.')
        for name, allowed in (('directions', DIRECTIONS), ('pairs', PAIRS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'{name}={getattr(self, name)!r} is not allowed; choose one of {allowed}.'
                )

    def allows(self, source: int, target: int) -> bool:
        """Whether features may cross from anchor ``source`` to anchor ``target``."""
        step = target - source
        if step == 0 or (self.pairs == 'neighbors' and abs(step) > 1):
            return False
        return self.directions == 'both' or (step > 0) == (self.directions == 'up')


#: 'two_way' is the space of SN-Netv2 (arXiv 2307.00154, section 3.2), 'one_way' that of SN-Net.
SCHEMES = {
    'two_way': Scheme(max_crossings=2, directions='both'),
    'one_way': Scheme(max_crossings=1, directions='up'),
}


def parse_scheme(scheme: str | Mapping[str, object] | Scheme) -> Scheme:
    """Scheme from its name, from the fields of :class:`Scheme` in a mapping, or as it is.

    Raises:
        TypeError: If ``scheme`` is of another type.
        ValueError: If the name or a field is unknown.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise ValueError(
                f'Unknown scheme {scheme!r}; choose one of {tuple(SCHEMES)} or give '
                'dict(max_crossings=..., directions=..., pairs=...).'
            )
        return SCHEMES[scheme]
    if isinstance(scheme, Mapping):
        allowed = tuple(field.name for field in fields(Scheme))
        unknown = sorted(set(scheme) - set(allowed))
        if unknown:
            raise ValueError(f'Unknown scheme fields {unknown}; allowed are {allowed}.')
        return Scheme(**scheme)  # type: ignore[arg-type]
    raise TypeError(f'scheme must be a name or a dict, got {type(scheme).__name__}.')
