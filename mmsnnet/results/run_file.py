"""What a results folder belongs to: ``run.json``, with the fingerprint of a sweep and details.

The fingerprint (config, weights, data, code) is compared before results are added; details (paths,
the metric of the summary, the space of stitches) are for readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmsnnet.stitching.alignment import Alignment
from mmsnnet.stitching.route import enumerate_routes
from mmsnnet.stitching.scheme import parse_scheme
from mmsnnet.stitching.space import StitchSpace

from .files import parse_json, write_atomically
from .fingerprint import differences
from .records import RECORDS_NAME, Record, plain_number

RUN_NAME = 'run.json'


def as_stored(fingerprint: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """A run as it is read back, so that tuples and scalars of numpy compare as they are stored."""
    run = {'fingerprint': fingerprint, 'details': details}
    return json.loads(json.dumps(run, default=plain_number))


def write_run(directory: Path, run: Mapping[str, Any]) -> None:
    """Write the run of :func:`as_stored` into a results folder."""
    text = json.dumps(run, indent=2, ensure_ascii=False) + '\n'
    write_atomically(directory / RUN_NAME, text.encode())


def read_run(directory: Path) -> dict[str, dict[str, Any]]:
    """Run of a results folder: dicts ``fingerprint`` and ``details``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is something else.
    """
    path = directory / RUN_NAME
    try:
        run = parse_json(path.read_bytes())
    except ValueError:
        run = None
    parts = {} if not isinstance(run, dict) else {'details': {}, **run}
    if not all(isinstance(parts.get(key), dict) for key in ('fingerprint', 'details')):
        raise ValueError(
            f'{path} is not the description of a run. Use another folder, or --overwrite.'
        )
    return parts


def check_fingerprint(directory: Path, fingerprint: Mapping[str, object]) -> None:
    """Refuse a results folder of another run.

    Raises:
        ValueError: Unless its run has this fingerprint; each difference is named.
    """
    try:
        stored = read_run(directory)['fingerprint']
    except FileNotFoundError:
        raise ValueError(
            f'{directory} holds {RECORDS_NAME} but no {RUN_NAME}, so it is unknown '
            'what was evaluated. Use another folder, or --overwrite.'
        ) from None
    differing = differences(stored, fingerprint)
    if differing:
        listed = '; '.join(
            f'{key}: {old} there, {new} now' for key, (old, new) in differing.items()
        )
        raise ValueError(
            f'{directory} holds results of another run ({listed}). Use another '
            'folder, or --overwrite to discard them.'
        )


def describe_space(space: StitchSpace) -> dict[str, Any]:
    """What tells the stitches of a space, for the details of a run."""
    depths = [anchor.depth for anchor in space.anchors]
    return dict(labels=list(space.labels), depths=depths, scheme=asdict(space.scheme))


def check_of_space(directory: Path, details: Mapping[str, Any], records: Iterable[Record]) -> None:
    """Refuse records of stitches that the run's space has not, if the run tells its space.

    Raises:
        ValueError: If a name is of no stitch of the space, or its id is another's.
    """
    told = details.get('space')
    if told is None:
        return
    try:
        depths, labels = told['depths'], told['labels']
        routes = enumerate_routes(depths, Alignment(depths), parse_scheme(told['scheme']))
        ids = {route.name(labels): number for number, route in enumerate(routes)}
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(f'{directory / RUN_NAME} describes no space of stitches.') from None
    for number, record in enumerate(records, start=1):
        if ids.get(record['name']) != record['id']:
            raise ValueError(
                f'{directory / RECORDS_NAME}, line {number}, is of the stitch {record["name"]!r} '
                f'with id {record["id"]}, which the run in {RUN_NAME} has not. Remove the line.'
            )
