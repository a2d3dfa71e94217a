"""The whole method on two CPU cores: render rooms, train two anchors, stitch, train, score.

Segmentation is the default; ``--task classification`` does the same with the objects of the rooms.
Every step is skipped if its result is there and goes on where it was interrupted, so the same
command finishes what was begun. Training runs through ``mim train``, with its output in
``OUT/*/train.log``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _cli
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
#: Seconds between looks at the logs, and between lines where there is no terminal.
POLL_SECONDS, LINE_SECONDS = 1.0, 20.0
#: Seed of the trainings, so that a second run on the same machine gives the same figures.
SEED = 0
#: Most lines that are shown of an error, and of a log that holds none.
ERROR_LINES = 8
#: Last line of a traceback, or an error of a command line.
ERROR = re.compile(r'[\w.]*(Error|Exception|Interrupt|Exit)\b')
#: Points that an anchor may lose inside the stitched model and still count as kept.
KEPT_WITHIN = 2.0


@dataclass(frozen=True)
class Task:
    """What differs between the tasks: the package that trains, recipes, layout of rooms, metric.

    Args:
        host: Package that trains.
        recipes: The recipe of each training by the name of its folder: small anchor, large anchor,
            stitched.
        layout: Layouts of the rooms, as make_rooms.py takes them.
        metric: Name of a metric in percent.
    """

    host: str
    recipes: Mapping[str, str]
    layout: str
    metric: str


TASKS = {
    'segmentation': Task(
        'mmseg',
        {
            'vit-s': 'upernet_vit-s_rooms',
            'vit-l': 'upernet_vit-l_rooms',
            'stitched': 'upernet_snnetv2_rooms',
        },
        'ade20k',
        'mIoU',
    ),
    'classification': Task(
        'mmpretrain',
        {
            'cls-vit-s': 'cls_vit-s_rooms',
            'cls-vit-l': 'cls_vit-l_rooms',
            'cls-stitched': 'cls_snnetv2_rooms',
        },
        'objects',
        'accuracy/top1',
    ),
}
SEGMENTATION = TASKS['segmentation']


@dataclass
class Run:
    """One training: a config, its folder, and what the command line changes of the config."""

    name: str
    config: Path
    folder: Path
    iters: int
    options: list[str] = field(default_factory=list)
    threads: int = 1
    host: str = 'mmseg'

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the last iteration."""
        return self.folder / f'iter_{self.iters}.pth'

    def start(self) -> subprocess.Popen:
        """Begin or resume the training in a process of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'mim', 'train', self.host, str(self.config)]
        command += ['--work-dir', str(self.folder), '--resume']
        command += ['--cfg-options', f'randomness.seed={SEED}', *self.options]
        threads = str(self.threads)
        environment = {**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}
        with open(self.folder / 'train.log', 'ab') as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)

    def progress(self) -> int:
        """Iterations done, as the log of scalars tells."""
        files = sorted(self.folder.glob('*/vis_data/scalars.json'))
        lines = files[-1].read_text().splitlines() if files else []
        for line in reversed(lines):
            try:
                return int(json.loads(line)['iter'])
            except (ValueError, KeyError):  # a line that is being written, or one of metrics
                continue
        return 0

    def cause(self) -> str:
        """Why the training stopped, as far as its log says."""
        return cause_of((self.folder / 'train.log').read_text(errors='replace'))


class StepError(Exception):
    """A step did not finish; the text is for the user."""


def cause_of(log: str) -> str:
    """Text of the last error in a log; its last lines if it holds none.

    OpenMIM runs the training in a process of its own and, if that fails, adds an error that says
    nothing but the whole command: it is not the cause.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    found = [
        number
        for number, line in enumerate(lines)
        if ERROR.match(line) and 'CalledProcessError' not in line
    ]
    if not found:
        return '\n'.join(lines[-ERROR_LINES:])
    text = [lines[found[-1]]]
    for line in lines[found[-1] + 1 :][: ERROR_LINES - 1]:
        if line.startswith(('Traceback', 'Training command')):
            break
        text.append(line)
    return '\n'.join(text)


def train(runs: Sequence[Run], console: Console) -> None:
    """Train side by side what is not trained yet, under one bar for each.

    Raises:
        StepError: If a training ends without its last checkpoint.
    """
    runs = [run for run in runs if not run.checkpoint.is_file()]
    processes = {run.name: run.start() for run in runs}
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
            tasks = {run.name: bars.add_task(run.name, total=run.iters) for run in runs}
            said = time.monotonic()
            while any(process.poll() is None for process in processes.values()):
                time.sleep(POLL_SECONDS)
                for run in runs:
                    bars.update(tasks[run.name], completed=run.progress())
                if not console.is_terminal and time.monotonic() - said > LINE_SECONDS:
                    said = time.monotonic()
                    states = (f'{run.name} {run.progress()}/{run.iters}' for run in runs)
                    console.print('  iterations: ' + ', '.join(states), highlight=False)
                if any(process.poll() for process in processes.values()):
                    break
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    for run in runs:
        if not run.checkpoint.is_file():
            raise StepError(
                f'the training of {run.name} stopped (log: {run.folder}/train.log):\n{run.cause()}'
            )


def call(command: Sequence[str | Path], threads: int = 2) -> None:
    """Run a tool with its output on the terminal.

    Raises:
        StepError: If it fails.
    """
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, cwd=ROOT)
    if done.returncode:
        raise StepError(f'{command[0]} failed with exit code {done.returncode}; see above.')


def score(run: Run) -> dict[str, Mapping[str, float]]:
    """Score every stitch of a trained model; metrics by name of the stitch."""
    out = run.folder / 'stitches'
    command = ['tools/test_all_stitches.py', run.config, run.checkpoint, '--out', out]
    call([*command, '--cfg-options', *run.options] if run.options else command)
    lines = (out / 'stitches.jsonl').read_text().splitlines()
    return {record['name']: record['metrics'] for record in map(json.loads, lines)}


def places(quick: bool) -> tuple[str, str]:
    """Folders of the rooms and of the trainings, relative to the project."""
    ending = '-quick' if quick else ''
    return f'data/rooms{ending}', f'work_dirs/rooms{ending}'


def rendering(quick: bool, task: Task = SEGMENTATION) -> list[str | Path]:
    """Command that renders the rooms."""
    train, val = ('60', '20') if quick else ('3700', '300')
    command = ['tools/make_rooms.py', places(quick)[0], '--train', train, '--val', val]
    return [*command, '--size', '96', '96', '--layout', task.layout]


def trainings(quick: bool, task: Task = SEGMENTATION) -> list[Run]:
    """The trainings: small anchor, large anchor, stitched."""
    from mmengine import Config

    runs, changes = [], dict(zip(places(False), places(quick)))
    for name, stem in task.recipes.items():
        config = ROOT / 'configs' / f'{stem}.py'
        cfg = Config.fromfile(config)
        iters, options = cfg.train_cfg.max_iters, []
        if quick:
            # Rooms, and checkpoints of anchors that stand in the config, wherever they stand.
            options = [f'{key}={changes[text]}' for key, text in texts(cfg) if text in changes]
            former, iters = f'{places(False)[1]}/{name}/iter_{iters}.pth', 60
            changes[former] = f'{places(True)[1]}/{name}/iter_{iters}.pth'
            options += [f'train_cfg.max_iters={iters}', f'train_cfg.val_interval={iters}']
            options += ['param_scheduler.0.end=50', 'param_scheduler.1.begin=50']
            options += [f'param_scheduler.1.end={iters}']
        threads = 2 if name.endswith('stitched') else 1
        folder = ROOT / places(quick)[1] / name
        runs.append(Run(name, config, folder, iters, options, threads, task.host))
    return runs


def texts(node: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """All texts of a config with their keys, as ``--cfg-options`` takes them."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            yield from texts(child, f'{key}.{number}')
    elif isinstance(node, Mapping) or hasattr(node, 'items'):
        for name, child in node.items():
            yield from texts(child, f'{key}.{name}' if key else name)


def verdict(
    alone: Mapping[str, float], inside: Mapping[str, float], metric: str = 'mIoU'
) -> list[str]:
    """What the figures say of the method, whether or not it worked.

    Args:
        alone: The metric of each anchor trained by itself, the small one first.
        inside: That of every stitch of the stitched model, the anchors among them.
        metric: Its name.
    """
    lines = []
    for name, value in alone.items():
        loss = value - inside[name]
        kept = 'kept' if loss <= KEPT_WITHIN else 'NOT KEPT'
        lines.append(
            f'{kept}: anchor {name} has {inside[name]:.2f} {metric} inside, {value:.2f} by itself'
        )
    low, high = (inside[name] for name in alone)
    between = [value for name, value in inside.items() if name not in alone]
    within = sum(min(low, high) <= value <= max(low, high) for value in between)
    above = sum(value > max(low, high) for value in between)
    gap = 'a gap to bridge' if high > low else 'NO GAP: the large anchor is not better'
    lines.append(f'{gap}: {low:.2f} (small) to {high:.2f} (large) {metric}')
    lines.append(
        f'of {len(between)} stitches between the anchors {within} score between them, {above} '
        f'above both and {len(between) - within - above} below both'
    )
    return lines


def run(task: Task, quick: bool, say: Callable[[str], None], console: Console) -> list[str]:
    """All steps of a task; returns the verdict.

    Raises:
        StepError: If a step does not finish.
    """
    # Said before anything that imports torch, which takes seconds.
    say('1/5 rendering rooms')
    call(rendering(quick, task))
    say('2/5 training both anchors by themselves, side by side')
    small, large, stitched = trainings(quick, task)
    train((small, large), console)
    say('3/5 training the stitched model: a stitch at every iteration')
    train((stitched,), console)
    say('4/5 scoring the anchors by themselves')
    metric = task.metric
    alone = {name: m[metric] for one in (small, large) for name, m in score(one).items()}
    say('5/5 scoring every stitch')
    inside = {name: metrics[metric] for name, metrics in score(stitched).items()}
    return verdict(alone, inside, metric)


@_cli.command('demo')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _cli.Parser(prog='demo', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--task', choices=TASKS, default='segmentation', help='what to train (%(default)s)'
    )
    parser.add_argument(
        '--quick', action='store_true', help='a minute of training that only shows that it runs'
    )
    args = parser.parse_args(argv)
    console = Console(stderr=True, soft_wrap=True)
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(f'[{time.monotonic() - start:5.0f} s] {text}', markup=False, highlight=False)

    try:
        lines = run(TASKS[args.task], args.quick, say, console)
    except StepError as error:
        console.print(f'demo: error: {error}', markup=False, style='red', highlight=False)
        return 1
    except KeyboardInterrupt:
        say('interrupted; the same command goes on from here')
        return 130
    for line in lines:
        print(line)
    say('done')
    return 0


if __name__ == '__main__':
    sys.exit(main())
