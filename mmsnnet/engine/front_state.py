"""What validations found so far, in the work directory, for a resumed training to go on with.

MMEngine saves a checkpoint before the validation of the same iteration, so that checkpoints know
nothing of it. The file holds every validation with its iteration; a training that is resumed at an
earlier checkpoint takes those before its own next one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path

from mmsnnet.results.files import parse_json, write_atomically

from .front_following import Validation

STATE_NAME = 'followed_front.json'


def read_state(
    directory: Path, metric: str, names: Collection[str], before: int
) -> list[Validation]:
    """Validations of a training before an iteration; none where there is no file.

    Args:
        directory: Work directory.
        metric: Metric of the values.
        names: Stitches of the space.
        before: Iteration of the next validation.

    Raises:
        ValueError: If the file is damaged, or of another metric or space.
    """
    path = Path(directory) / STATE_NAME
    if not path.is_file():
        return []
    try:
        content = parse_json(path.read_bytes())
        found = [
            Validation(
                int(row['iteration']),
                {
                    name: math.nan if value is None else float(value)
                    for name, value in row['values'].items()
                },
            )
            for row in content['validations']
        ]
        known_metric = content['metric']
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f'{path} is damaged ({error})') from None
    if known_metric != metric:
        raise ValueError(f'{path} is of the metric {known_metric}, not {metric}')
    unknown = sorted({name for one in found for name in one.values} - set(names))
    if unknown:
        raise ValueError(f'{path} is of another space: the stitch {unknown[0]} is not in this one')
    return [one for one in found if one.iteration < before]


def write_state(directory: Path, metric: str, validations: Sequence[Validation]) -> None:
    """Put all validations so far on the disk before returning."""
    rows = [
        dict(
            iteration=one.iteration,
            values={
                name: value if math.isfinite(value) else None
                for name, value in one.values.items()
            },
        )
        for one in validations
    ]
    content = json.dumps(dict(metric=metric, validations=rows), ensure_ascii=False)
    write_atomically(Path(directory) / STATE_NAME, content.encode() + b'\n')
