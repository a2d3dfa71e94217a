"""Routes as a tree: what their common beginnings save, and in which order to walk them.

Programs that begin with the same steps begin with the same computation. Walked depth first, a tree
of programs runs every such beginning once; what stands at a fork is held until the last branch
behind it has been entered. Of the branches at a fork the one that holds most comes last, when the
fork itself is already let go (the order of Sethi and Ullman for expressions), so a space of two
anchors and two crossings never holds more than two states, whatever its depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .program import Block, Step

Program = Sequence[Step]


@dataclass
class _Node:
    """Place in the tree behind some steps."""

    children: dict[Step, _Node] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Visit:
    """One route in the order of the walk.

    Attributes:
        name: Of the route.
        start: Number of its first steps that routes before it have run.
        holds: Number of first steps of each state that later routes take up, ascending, with how
            many of them take up that very state.
    """

    name: str
    start: int
    holds: tuple[tuple[int, int], ...]


class RouteTree:
    """Routes that are executed with each common beginning once.

    Args:
        programs: Steps of each route by its name; equal programs are allowed.

    Raises:
        ValueError: If there are no routes.
    """

    def __init__(self, programs: Mapping[str, Program]) -> None:
        if not programs:
            raise ValueError('A tree of routes needs at least one route.')
        self._programs = {name: tuple(program) for name, program in programs.items()}
        self._root = _Node()
        for name, program in self._programs.items():
            node = self._root
            for step in program:
                node = node.children.setdefault(step, _Node())
            node.ends.append(name)
        self.order = tuple(_ordered(self._root))
        self.visits = tuple(self._visits())

    def __len__(self) -> int:
        return len(self.order)

    @property
    def num_blocks(self) -> int:
        """Blocks that the walk runs."""
        return sum(
            isinstance(step, Block)
            for visit in self.visits
            for step in self._programs[visit.name][visit.start :]
        )

    @property
    def num_blocks_apart(self) -> int:
        """Blocks that the routes run one by one."""
        return sum(isinstance(s, Block) for program in self._programs.values() for s in program)

    @property
    def peak_states(self) -> int:
        """Most states held at once between two routes."""
        return max(len(visit.holds) for visit in self.visits)

    def _visits(self) -> list[Visit]:
        """The walk with its states, found from the end: what is held serves what comes later."""
        programs = [self._programs[name] for name in self.order]
        starts = [0, *map(common_steps, programs, programs[1:])]
        held: list[tuple[int, int]] = []
        visits = []
        for name, start in zip(reversed(self.order), reversed(starts)):
            visits.append(Visit(name, start, tuple(held)))
            # A state deeper than where this route starts belongs to this route and what follows.
            deeper = [entry for entry in held if entry[0] == start]
            held = [entry for entry in held if entry[0] < start]
            uses = 1 + sum(count for _, count in deeper)
            if start:
                held.append((start, uses))
        return visits[::-1]


def common_steps(one: Program, other: Program) -> int:
    """Number of first steps that two programs share."""
    count = 0
    for a, b in zip(one, other):
        if a != b:
            break
        count += 1
    return count


def _ordered(root: _Node) -> list[str]:
    """Names in the order of the walk; without recursion, since routes may be long."""
    below: dict[int, tuple[int, list[str]]] = {}
    for node in _children_first(root):
        parts = sorted(
            (below.pop(id(child)) for child in node.children.values()), key=lambda part: part[0]
        )
        names = [*node.ends, *(name for _, part in parts for name in part)]
        needs = [0] * bool(node.ends) + [need for need, _ in parts]
        # All but the last branch run while this fork is held.
        need = max([need + 1 for need in needs[:-1]] + needs[-1:], default=0)
        below[id(node)] = need, names
    return below[id(root)][1]


def _children_first(root: _Node) -> list[_Node]:
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting.extend(node.children.values())
    return nodes[::-1]
