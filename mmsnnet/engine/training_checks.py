"""Refuses, before training, what a stitched training could not do or would do wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import BaseLoop, Runner

from .metric_names import known_names, only_writes_files
from .scoring import StitchScoring

#: Begin keys of the summary that no other loop than those of stitches returns.
_SUMMARY = ('pareto/', 'best/', 'worst/')


def refuse_runner_compile(runner: Runner) -> None:
    """Refuse a config with ``compile=`` of the Runner.

    MMEngine would compile ``train_step`` as a whole. Each route is another graph of it, so torch
    would compile anew for one stitch after the other and then give up.

    Raises:
        ValueError: If the config asks for it.
    """
    wanted = runner.cfg.get('compile')
    if wanted is None or wanted is False:
        return
    raise ValueError(
        f'compile={wanted!r} of the config would compile the training step anew for every stitch. '
        'Leave it out and set model.backbone.compile_blocks=True, or to the same arguments: it '
        'compiles the blocks once for all stitches.'
    )


def refuse_shards(runner: Runner) -> None:
    """Refuse strategies of MMEngine's FlexibleRunner that keep weights in shards.

    The fit runs the anchors outside of the wrapper's forward, where weights in shards are not
    whole, and a resumed training puts gradients back by name.

    Raises:
        ValueError: If the runner has such a strategy.
    """
    strategy = type(getattr(runner, 'strategy', None))
    names = {kind.__name__ for kind in strategy.__mro__}
    if names & {'FSDPStrategy', 'DeepSpeedStrategy', 'ColossalAIStrategy'}:
        raise ValueError(
            f'{strategy.__name__} cannot train stitches: it keeps weights in shards, and the fit '
            'and the hooks read them whole. Use the Runner, or fully_shard of torch in a loop of '
            'your own (docs/scale.md).'
        )


class Monitor(NamedTuple):
    """A metric that something in a config waits for.

    Attributes:
        owner: What waits for it, as a config names it.
        key: Key of the metrics of validation.
        rule: 'greater' or 'less', which is better; None where it is left to MMEngine.
    """

    owner: str
    key: str
    rule: str | None


def monitors(runner: Runner) -> Iterator[Monitor]:
    """Metrics that hooks and schedulers of a runner wait for."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            for key, rule in zip(hook.key_indicators, hook.rules):
                yield Monitor(f'save_best of {type(hook).__name__}', key, rule)
        elif isinstance(hook, EarlyStoppingHook):
            yield Monitor(f'monitor of {type(hook).__name__}', hook.monitor, hook.rule)
    for scheduler in _schedulers(runner.param_schedulers):
        if getattr(scheduler, 'need_val_args', False):
            owner = f'monitor of {type(scheduler).__name__}'
            yield Monitor(owner, scheduler.monitor, getattr(scheduler, 'rule', None))


def _schedulers(schedulers: Any) -> Iterator[Any]:
    """Schedulers that are built, of one optimizer or of several."""
    groups = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers]
    for group in groups:
        yield from group if isinstance(group, (list, tuple)) else ()


def check_monitors(runner: Runner, val_loop: object) -> None:
    """Refuse hooks and schedulers that wait for a metric which validation will not return.

    MMEngine would notice at the first validation, or never. Nothing is checked where the runner
    does not train or validate.

    Args:
        runner: The runner, its training loop and schedulers built if it trains.
        val_loop: Loop of validation.

    Raises:
        ValueError: If a key cannot be among the metrics, or its rule is the contrary of what is
            better.
    """
    if not isinstance(runner._train_loop, BaseLoop) or not isinstance(val_loop, BaseLoop):
        return
    scoring = getattr(val_loop, 'scoring', None)
    for monitor in monitors(runner):
        if isinstance(scoring, StitchScoring):
            _check_stitched(monitor, scoring, val_loop)
        elif monitor.key.startswith(_SUMMARY):
            raise ValueError(
                f'{monitor.owner} is {monitor.key!r}, which {type(val_loop).__name__} does not '
                "return: set val_cfg=dict(type='StitchValLoop', metric=...), or a key that it has."
            )


def _check_stitched(monitor: Monitor, scoring: StitchScoring, loop: Any) -> None:
    """Refuse a monitor that does not go with a loop of stitches."""
    rules = scoring.summary_rules
    key = monitor.key
    if only_writes_files(loop.evaluator):
        rules = {}
    if key == 'auto' and rules:
        _check_rule(monitor, scoring.metric, rules)
        return
    name, _, metric = key.partition('/')
    names = known_names(loop.evaluator)
    if name in {stitch.name for stitch in scoring.stitches} and metric:
        if names is None or metric in names:
            return
    elif key in rules:
        _check_rule(monitor, key, rules)
        return
    hint = ', '.join(map(repr, rules)) or (
        "none yet: give val_cfg a metric, such as metric='mIoU', for a summary of all stitches"
    )
    example = f'{scoring.stitches[0].name}/{scoring.metric or "METRIC"}'
    raise ValueError(
        f'{monitor.owner} is {key!r}, which {type(loop).__name__} does not return. Keys of its '
        f'summary: {hint}; of one stitch: such as {example!r}.'
    )


def _check_rule(monitor: Monitor, key: str, rules: Mapping[str, str]) -> None:
    """Refuse a rule that keeps the worst, or one that MMEngine cannot infer later."""
    rule = monitor.rule
    if rule is None and monitor.key == 'auto':
        rule = _inferred(key)
    if rule == rules[key] or (rule is None and monitor.key != 'auto'):
        return
    said = f'rule={rule!r}' if rule else 'no rule that MMEngine could infer'
    raise ValueError(
        f'{monitor.owner} is {monitor.key!r} with {said}, but {key!r} is better when it is '
        f"{rules[key]}: set rule='{rules[key]}'."
    )


def _inferred(key: str) -> str | None:
    """Rule that CheckpointHook infers of a key's name, None if it raises."""
    try:
        return CheckpointHook(save_best=key).rules[0]
    except ValueError:
        return None
