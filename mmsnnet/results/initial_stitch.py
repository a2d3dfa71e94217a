"""The stitch that a backbone runs at first: by name, or by what results say of a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmsnnet.stitching.cost import CostTable
from mmsnnet.stitching.space import Stitch, StitchSpace

from .candidate import UNITS
from .chooser import chooser_of_costs, chooser_of_results


def resolve_stitch(
    space: StitchSpace, image_size: Sequence[int], wanted: str | int | Mapping | None
) -> Stitch:
    """Stitch that a backbone runs at first.

    Args:
        space: Its stitches.
        image_size: (height, width) in pixels, for the cost of the backbone alone.
        wanted: Name or id; None for the costliest anchor; or a dict of what
            :meth:`~mmsnnet.results.chooser.Chooser.choose` takes and, beside it, ``results``
            (folder of a sweep), ``latency`` (file), ``metric`` and ``rule``, such as
            ``dict(results='DIR', gflops=120)``. Without ``results`` the stitch of most
            FLOPs within the limits is taken, and FLOPs are those of the backbone alone.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If there is no such stitch, a key is unknown, or no stitch meets it.
    """
    if not isinstance(wanted, Mapping):
        return space[wanted if wanted is not None else len(space.anchors) - 1]
    wish = dict(wanted)
    sources = {key: wish.pop(key, None) for key in ('results', 'latency', 'metric', 'rule')}
    unknown = set(wish) - {*UNITS, 'min_metric', 'knee'}
    if unknown:
        raise ValueError(
            f'stitch=dict({", ".join(sorted(unknown))}=...) is not possible; keys are results, '
            f'latency, metric, rule and {", ".join(UNITS)}, min_metric, knee.'
        )
    directory = sources.pop('results')
    if directory is None:
        chooser = chooser_of_costs(CostTable(space, tuple(image_size)), sources['latency'])
    else:
        chooser = chooser_of_results(directory, **sources).check_space(space, directory)
    return space[chooser.choose(**wish).name]
