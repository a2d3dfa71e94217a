"""The page of a sweep: every stitch over its cost, with its route as a picture of blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from typing import Any

from mmsnnet.results.chooser import Chooser
from mmsnnet.results.records import rule_of_metric
from mmsnnet.stitching.alignment import Alignment
from mmsnnet.stitching.route_names import anchors_of_names, route_of_name

from .quantities import AXIS_LABELS, shown_value


def fill_template(template: str, data: Mapping[str, Any]) -> str:
    """A page that needs nothing but itself.

    Args:
        template: Page with places for the shared style (``/*CHART.CSS*/``), the shared functions
            (``/*CHART.JS*/``) and the data as JSON (``/*DATA*/``), once each.
        data: What the page shows, as JSON can hold it.
    """
    folder = resources.files(__package__)
    pieces = {
        f'/*{name.upper()}*/': folder.joinpath(name).read_text('utf-8')
        for name in ('chart.css', 'chart.js')
    }
    # A name or a metric must not end the script that holds it.
    pieces['/*DATA*/'] = json.dumps(data, allow_nan=False).replace('<', '\\u003c')
    for place, content in pieces.items():
        head, tail = template.split(place)
        template = head + content + tail
    return template


def _stitches(chooser: Chooser) -> list[dict[str, Any]]:
    return [
        dict(
            name=one.name,
            family=one.family,
            **{axis: one.cost(axis) for axis in ('gflops', 'params', 'ms', 'mb')},
            metrics={key: shown_value(value) for key, value in one.metrics.items()},
            **_certainty(chooser, one.name),
        )
        for one in chooser.candidates
    ]


def _certainty(chooser: Chooser, name: str) -> dict[str, Any]:
    """Interval of the metric that is judged by, and probabilities; empty where not known."""
    if chooser.certainty is None or name not in chooser.certainty.stitches:
        return {}
    one = chooser.certainty.stitches[name]
    sure = dict(
        metric=chooser.metric,
        confidence=chooser.certainty.confidence,
        interval=[one.low, one.high],
        front=one.on_front,
        cheaper=one.beats_cheaper,
        small=one.beats_small,
    )
    return dict(sure=sure)


def _depths(chooser: Chooser) -> dict[str, int]:
    """Blocks of the anchors that are among the stitches, from cheap to costly."""
    depths = anchors_of_names({one.name: one.family for one in chooser.candidates})
    flops = {one.family: one.flops for one in chooser.candidates}
    return dict(sorted(depths.items(), key=lambda item: (item[1], flops[item[0]])))


def _routes(
    chooser: Chooser, depths: Mapping[str, int]
) -> tuple[list[dict[str, Any]], dict[str, list[list[int]]]]:
    """Anchors with the places of their boundaries, and [anchor, start, stop] of all segments.

    Both are empty where the depth of an anchor is not known.
    """
    families = {one.name: one.family for one in chooser.candidates}
    labels = list(depths)
    if {label for family in families.values() for label in family.split('-')} - set(labels):
        return [], {}
    alignment = Alignment([depths[label] for label in labels])
    anchors = [
        dict(
            label=label,
            positions=[alignment.position(number, b) for b in range(depths[label] + 1)],
        )
        for number, label in enumerate(labels)
    ]
    routes = {}
    for name, family in families.items():
        with suppress(ValueError):  # a name that is no route of these has no picture
            route = route_of_name(name, family, labels, [depths[label] for label in labels])
            routes[name] = [[s.anchor, s.start, s.stop] for s in route.segments]
    return anchors, routes


def _knee(chooser: Chooser, axis: str) -> str | None:
    """Name of the knee of the front; None where no stitch has the metric."""
    with suppress(ValueError):
        return chooser.knee(axis).name
    return None


def page_data(
    sweeps: Mapping[str, Chooser],
    title: str | None = None,
    axis: str = 'gflops',
    depths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What the page shows, as JSON can hold it.

    Args:
        sweeps: Stitches by name of the sweep; the first one's metric is shown first.
        title: Heading; None for the names of the sweeps.
        axis: Cost that is shown first: 'gflops', 'params', 'ms' or 'mb'.
        depths: Number of blocks of each anchor by label, from cheap to costly; without it, those
            of the anchors among the stitches.
    """
    first = next(iter(sweeps.values()))
    metrics = dict.fromkeys(
        key for chooser in sweeps.values() for one in chooser.candidates for key in one.metrics
    )
    rules = {key: rule_of_metric(key) for key in metrics}
    if first.metric is not None:
        rules[first.metric] = first.rule
    entries = []
    for name, chooser in sweeps.items():
        anchors, routes = _routes(chooser, depths or _depths(chooser))
        entries.append(
            dict(name=name, stitches=_stitches(chooser), anchors=anchors, routes=routes)
        )
    return dict(
        title=title or ', '.join(sweeps),
        metric=first.metric,
        axis=axis,
        labels=AXIS_LABELS,
        rules=rules,
        knee=_knee(first, axis),
        sweeps=entries,
    )


def to_html(
    sweeps: Mapping[str, Chooser], title: str | None = None, axis: str = 'gflops'
) -> str:
    """Page of one or several sweeps; it needs nothing but itself.

    Hovering a stitch shows its costs and metrics, a click its route; costs, metrics and families
    can be chosen. The page opens with the knee of the front, ``pareto.html#S5-L14`` with that
    stitch, and its address follows the clicks (``#S5-L14@name`` for sweeps beyond the first).

    Args:
        sweeps: See :func:`page_data`.
        title: See there.
        axis: See there.
    """
    template = resources.files(__package__).joinpath('pareto_template.html').read_text('utf-8')
    return fill_template(template, page_data(sweeps, title, axis))
