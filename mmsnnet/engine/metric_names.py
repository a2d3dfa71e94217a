"""What is known beforehand of the metrics that an evaluator returns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmengine.evaluator import Evaluator

#: Names that mmseg's IoUMetric returns for each of its ``iou_metrics``, beside 'aAcc'.
_IOU_NAMES = {
    'mIoU': ('mIoU', 'mAcc'),
    'mDice': ('mDice', 'mAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
}


def _metrics(evaluator: Evaluator) -> list[Any]:
    return list(getattr(evaluator, 'metrics', ()))


def only_writes_files(evaluator: Evaluator) -> bool:
    """Whether every metric of an evaluator writes files alone and returns nothing."""
    metrics = _metrics(evaluator)
    return bool(metrics) and all(_names(metric) == [] for metric in metrics)


def _kind(metric: Any, *names: str) -> bool:
    """Whether a metric is of a class of one of these names, whose own reduction it uses."""
    for kind in type(metric).__mro__:
        if 'compute_metrics' in vars(kind):
            return kind.__name__ in names
    return False


def _names(metric: Any) -> list[str] | None:
    """Names that a metric returns, without its prefix; None where this is not known.

    Raises:
        ValueError: If mmseg's IoUMetric is asked for something that it does not compute.
    """
    if getattr(metric, 'format_only', False) or _kind(metric, 'DumpResults'):
        return []
    if _kind(metric, 'IoUMetric'):
        unknown = [one for one in metric.metrics if one not in _IOU_NAMES]
        if unknown:
            raise ValueError(
                f'IoUMetric does not compute iou_metrics={unknown}; it knows {list(_IOU_NAMES)}.'
            )
        return ['aAcc', *(name for one in metric.metrics for name in _IOU_NAMES[one])]
    if _kind(metric, 'DepthMetric'):
        return list(metric.metrics)
    return None


def known_names(evaluator: Evaluator) -> list[str] | None:
    """All names that an evaluator returns, None where one of its metrics is not known so well."""
    found = []
    for metric in _metrics(evaluator):
        names = _names(metric)
        if names is None:
            return None
        prefix = f'{metric.prefix}/' if metric.prefix else ''
        found += [prefix + name for name in names]
    return found or None


def _may_return(metric: Any, name: str) -> bool:
    """Whether a metric may return a name, as far as its prefix tells."""
    return _names(metric) != [] and (
        not metric.prefix or name.startswith(f'{metric.prefix}/')
    )


def check_metric_name(name: str, evaluator: Evaluator) -> None:
    """Refuse a name that an evaluator can never return, as far as this is known beforehand.

    Raises:
        ValueError: If none of its metrics returns it.
    """
    names, metrics = known_names(evaluator), _metrics(evaluator)
    if names is not None and name not in names:
        raise ValueError(
            f'metric={name!r} of the loop is not among the metrics of the evaluator: '
            f'{sorted(names)}.'
        )
    if metrics and not any(_may_return(metric, name) for metric in metrics):
        prefixes = sorted({f'{metric.prefix}/' for metric in metrics if metric.prefix})
        raise ValueError(
            f'metric={name!r} of the loop is not among the metrics of the evaluator, whose names '
            f'all begin with {" or ".join(prefixes)}.'
        )


def returned_nothing(name: str, returned: Collection[str], evaluator: Evaluator) -> bool:
    """Whether a name may be missing only because its metric found nothing to reduce.

    CocoMetric returns nothing at all where no object was found.

    Args:
        name: Name that was not returned.
        returned: Names that were.
        evaluator: What returned them.
    """
    prefixes = {f'{metric.prefix}/' for metric in _metrics(evaluator) if metric.prefix}
    for metric in _metrics(evaluator):
        if not _may_return(metric, name):
            continue
        if metric.prefix:
            own = [key for key in returned if key.startswith(f'{metric.prefix}/')]
        else:
            own = [key for key in returned if not key.startswith(tuple(prefixes))]
        if not own:
            return True
    return False
