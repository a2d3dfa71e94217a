"""Questions to files: which stitch of these results keeps this budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmsnnet.stitching.cost import CostTable
from mmsnnet.stitching.space import Stitch, StitchSpace

from .choice import UNITS, Candidate, Chooser, check_axis
from .result_files import read_latency, read_results, value_of


def chooser_of_results(
    directory: str | os.PathLike[str],
    latency: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    rule: str | None = None,
) -> Chooser:
    """Chooser among the scored stitches of a results folder.

    Args:
        directory: Folder of ``tools/test_all_stitches.py``.
        latency: File of ``tools/measure_latency.py``, for limits in ms and MB.
        metric: See :func:`~mmsnnet.results.result_files.read_results`.
        rule: See there.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If they are damaged.
    """
    results = read_results(directory, metric, rule)
    return chooser_of_records(results.records, results.metric, results.rule, latency)


def chooser_of_records(
    records: Iterable[Mapping[str, Any]],
    metric: str | None,
    rule: str = 'greater',
    latency: str | os.PathLike[str] | None = None,
) -> Chooser:
    """Chooser among the stitches of records.

    Args:
        records: Dicts of ``name family flops params metrics``.
        metric: Metric to choose by; None if they have none.
        rule: 'greater' or 'less', which is better.
        latency: File of ``tools/measure_latency.py``.
    """
    measured = read_latency(latency) if latency is not None else {}
    candidates = [
        Candidate(
            *(record[key] for key in ('name', 'family', 'flops', 'params')),
            value_of(record, metric) if metric else float('nan'),
            *measured.get(record['name'], (None, None)),
            record['metrics'],
        )
        for record in records
    ]
    return Chooser(candidates, metric, rule)


def chooser_of_costs(
    costs: CostTable, latency: str | os.PathLike[str] | None = None
) -> Chooser:
    """Chooser among all stitches of a cost table, none of which was scored."""
    measured = read_latency(latency) if latency is not None else {}
    return Chooser(
        Candidate(stitch.name, stitch.family, costs[stitch].flops, costs[stitch].params,
                  float('nan'), *measured.get(stitch.name, (None, None)))
        for stitch in costs.space
    )  # fmt: skip


def check_in_space(chooser: Chooser, space: StitchSpace, source: object) -> Chooser:
    """The chooser itself.

    Raises:
        ValueError: If it knows stitches that the space has not.
    """
    foreign = [one.name for one in chooser.candidates if one.name not in space]
    if foreign:
        raise ValueError(
            f'{source} has results of {len(foreign)} stitches that this model has not, such as '
            f'{foreign[0]}: they are of other anchors or of another scheme.'
        )
    return chooser


def ask(
    chooser: Chooser,
    min_metric: float | None = None,
    knee: bool | str = False,
    **limits: float | None,
) -> Candidate:
    """Answer of a chooser to one question: limits, a least quality, or the knee.

    Args:
        chooser: Who is asked.
        min_metric: Quality that the cheapest stitch in GFLOPs is to reach.
        knee: True for the knee over GFLOPs, or the axis of cost.
        limits: Most that the stitch may cost, by axis.

    Raises:
        ValueError: If not exactly one question is asked, or it has no answer.
    """
    for axis in limits:
        check_axis(axis)
    limits = {axis: limit for axis, limit in limits.items() if limit is not None}
    if sum((min_metric is not None, bool(knee), bool(limits))) != 1:
        raise ValueError(
            f'Ask for one thing: limits ({", ".join(f"{axis}=" for axis in UNITS)}), min_metric= '
            'or knee=.'
        )
    if limits:
        return chooser.within(**limits)
    if min_metric is not None:
        return chooser.reaching(min_metric)
    return chooser.knee('gflops' if knee is True else knee)


def resolve_stitch(
    space: StitchSpace, image_size: Sequence[int], wanted: str | int | Mapping | None
) -> Stitch:
    """Stitch that a backbone runs at first.

    Args:
        space: Its stitches.
        image_size: (height, width) in pixels, for the cost of the backbone alone.
        wanted: Name or id; None for the costliest anchor; or a dict of a question to :func:`ask`
            with, beside it, ``results`` (folder of a sweep), ``latency`` (file), ``metric`` and
            ``rule``: ``dict(results='DIR', gflops=120)``. Without ``results`` the stitch of most
            FLOPs within the limits is taken, and FLOPs are those of the backbone alone.

    Raises:
        FileNotFoundError: If results or latency are missing.
        ValueError: If there is no such stitch, a key is unknown, or the question has no answer.
    """
    if not isinstance(wanted, Mapping):
        return space[wanted if wanted is not None else len(space.anchors) - 1]
    question = dict(wanted)
    sources = {key: question.pop(key, None) for key in ('results', 'latency', 'metric', 'rule')}
    unknown = set(question) - {*UNITS, 'min_metric', 'knee'}
    if unknown:
        raise ValueError(
            f'stitch=dict({", ".join(sorted(unknown))}=...) is not possible; keys are results, '
            f'latency, metric, rule and {", ".join(UNITS)}, min_metric, knee.'
        )
    directory = sources.pop('results')
    if directory is None:
        chooser = chooser_of_costs(CostTable(space, tuple(image_size)), sources['latency'])
    else:
        chooser = check_in_space(chooser_of_results(directory, **sources), space, directory)
    return space[ask(chooser, **question).name]
