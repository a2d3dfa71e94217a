"""Which steps of several routes can be done at once, in one batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from .program import Step

#: A step and the places in the tree of routes that it leads to, from different beginnings.
StepBatch = tuple[Step, tuple[int, ...]]


class RouteBatches:
    """Places in a tree of routes, and the order of steps in which routes wait for each other.

    Routes that differ in their beginnings often end in the same blocks. Steps are done in an order
    that contradicts none of the programs, so when it comes to a step all routes that need it stand
    before it, each distinct beginning once, and it can be done for all of them in one batch.

    Args:
        programs: Steps of each route by its name.

    Attributes:
        paths: By name of the route, its places: 0 before the first step, and one behind each step.
            Routes share the places of their common beginning.
        parents: By place, the one before its last step; 0 for 0.
    """

    def __init__(self, programs: Mapping[str, Sequence[Step]]) -> None:
        before: dict[Step, set[Step]] = {}
        for program in programs.values():
            for one, after in zip((None, *program), program):
                before.setdefault(after, set()).update(() if one is None else (one,))
        self._steps = tuple(TopologicalSorter(before).static_order())
        ranks = {step: rank for rank, step in enumerate(self._steps)}
        self.parents = [0]
        self._ranks = [-1]
        places: dict[tuple[int, int], int] = {}
        self.paths: dict[str, tuple[int, ...]] = {}
        for name, program in programs.items():
            path = [0]
            for step in program:
                key = (path[-1], ranks[step])
                if key not in places:
                    places[key] = len(self.parents)
                    self.parents.append(path[-1])
                    self._ranks.append(ranks[step])
                path.append(places[key])
            self.paths[name] = tuple(path)

    def plan(self, names: Iterable[str], known: Collection[int] = ()) -> list[StepBatch]:
        """Batches of steps, in order, that lead some routes to their ends.

        Args:
            names: Of the routes.
            known: Places that need not be reached again; 0 never needs to.
        """
        seen = {0, *known}
        waiting: dict[int, list[int]] = {}
        for name in names:
            for place in reversed(self.paths[name]):
                if place in seen:
                    break
                seen.add(place)
                waiting.setdefault(self._ranks[place], []).append(place)
        return [(self._steps[rank], tuple(waiting[rank])) for rank in sorted(waiting)]
