"""From a config and a budget to a file that runs: train, score, choose, export, check, report.

Each stage is done by the tool that does it alone, and recorded in OUT/make_model.json when it is
done, so that the same command goes on after an interruption, and another budget for the same model
only chooses and exports anew. What stands behind -- goes to export_stitch.py: -- --onnx --int8
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _cli
import _stages
from _model_report import report_text

ROOT = Path(__file__).resolve().parents[1]
RECORD, LOCK, REPORT = 'make_model.json', '.make_model.lock', 'report.md'
TRAINING, SWEEP, LATENCY, MODEL = 'training', 'stitches', 'latency.json', 'model'
#: Options of export_stitch.py that are given to it here.
OWN = ('--stitch', '--gflops', '--ms', '--min-metric', '--all-stitches', '--stitches', '--out',
       '--results', '--latency', '--metric', '--overwrite', '--cfg-options')  # fmt: skip
#: Addresses of objects, which the texts of some configs hold.
ADDRESS = re.compile(r' at 0x[0-9a-f]+')
#: Images of the test data set that files are compared with the model on, beside noise.
CHECKED_IMAGES = 32
#: Differences of two configs that a message names.
SHOWN = 3


class RawOptions(_cli.ConfigOptions):
    """``--cfg-options``, kept as text for other tools besides."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Merge the overrides, and append their texts."""
        super().__call__(parser, namespace, values, option)
        namespace.cfg_texts = [*namespace.cfg_texts, *values]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index('--') if '--' in argv else len(argv)
    parser = _cli.Parser(
        prog='make_model',
        description=__doc__.splitlines()[0],
        usage='%(prog)s CONFIG (--gflops X | --ms X | --min-metric M) --out DIR [options] '
        '[-- options of export_stitch.py]',
    )
    parser.add_argument('config', help='config of the stitched model')
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument('--gflops', type=float, help='the best within so many GFLOPs of the model')
    budget.add_argument('--ms', type=float, help='the best within so many milliseconds, measured')
    budget.add_argument('--min-metric', type=float, help='the cheapest that is as good as this')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of all results')
    parser.add_argument('--checkpoint', metavar='FILE', help='trained weights; trains none then')
    parser.add_argument('--gpus', type=int, help='train on several, by the launcher pytorch')
    parser.add_argument(
        '--stitches', default='all', help='those to score, as of test_all_stitches.py'
    )
    parser.add_argument('--metric', help='metric to choose by (default: that of the sweep)')
    parser.add_argument('--device', help='to measure milliseconds on')
    parser.add_argument('--threads', type=int, help='to measure milliseconds with')
    parser.set_defaults(cfg_texts=[])
    parser.add_argument(
        '--cfg-options', nargs='+', action=RawOptions, metavar='KEY=VALUE',
        help='overrides of the config',
    )  # fmt: skip
    args = parser.parse_args(argv[:split])
    args.export = argv[split + 1 :]
    check_export_options(parser, args.export)
    return args


def check_export_options(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    """Refuse options of the export before hours of work, not behind them."""
    import export_stitch

    taken = [one for one in options if one.partition('=')[0] in OWN]
    if taken:
        parser.error(f'{taken[0]} is not to be given behind --: make_model.py gives it.')
    parsed = export_stitch.parse_args(['CONFIG', 'FILE', '--out', 'DIR', *options])
    if export_stitch.forms_of(parsed):
        from mmsnnet.deploy.onnx_export import require_onnx

        try:
            require_onnx()
        except ImportError as error:
            parser.error(str(error))


def run_tool(stage: str, command: Sequence[str | Path], log: Path | None = None) -> None:
    """Run a tool in a process of its own; it holds the lock of the folder too.

    Args:
        stage: Its name, for the message.
        command: The tool and its arguments.
        log: File that its output is appended to; None leaves it on the terminal.

    Raises:
        RuntimeError: If it fails.
    """
    command = [sys.executable, *map(str, command)]
    if log is None:
        done = subprocess.run(command, close_fds=False, stdout=sys.stderr)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'ab') as file:
            done = subprocess.run(command, close_fds=False, stdout=file, stderr=file)
    if done.returncode:
        from demo import cause_of

        cause = 'see above' if log is None else f'{cause_of(log.read_text(errors="replace"))}'
        raise RuntimeError(
            f'{stage} stopped with exit code {done.returncode}: {cause}. The same command goes on '
            f'from here{"" if log is None else f" (log: {log})"}.'
        )


class Job:
    """The stages of one folder.

    Args:
        args: Command line.

    Raises:
        FileNotFoundError: If config or checkpoint are missing.
        ValueError: If the folder belongs to another config or checkpoint.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from mmsnnet.recipes import find_config

        self.args = args
        self.out = Path(args.out).resolve()
        self.config = Path(find_config(args.config)).resolve()
        self.identity = self._identity()
        self.read_record()

    def read_record(self) -> None:
        """Read what was done, again once the folder is locked.

        Raises:
            ValueError: If the folder belongs to another config or checkpoint.
        """
        self.record = _stages.StageRecord(self.out / RECORD)
        self._check_identity()

    def _identity(self) -> dict[str, Any]:
        """What is trained, and what was trained already."""
        from mmsnnet.apis.model_config import load_model_config
        from mmsnnet.results.fingerprint import fingerprint_file

        cfg = load_model_config(str(self.config), self.args.cfg_options).to_dict()
        cfg.pop('work_dir', None)
        text = ADDRESS.sub('', json.dumps(cfg, sort_keys=True, default=repr))
        given = self.args.checkpoint
        if given is not None and not Path(given).is_file():
            raise FileNotFoundError(f'There is no checkpoint {given}.')
        weights = None if given is None else fingerprint_file(given)
        return dict(config=json.loads(text), checkpoint=weights)

    def _check_identity(self) -> None:
        from mmsnnet.results.fingerprint import differences

        former = self.record.inputs('train')
        if former is None or former == self.identity:
            return
        changes = [
            f'{key} was {old!r}, is {new!r}'
            for key, (old, new) in differences(former, self.identity).items()
        ]
        more = f' and {len(changes) - SHOWN} more' if len(changes) > SHOWN else ''
        raise ValueError(
            f'{self.out} is of another config or checkpoint ({"; ".join(changes[:SHOWN])}{more}): '
            'give another --out, or remove it.'
        )

    @property
    def checkpoint(self) -> Path:
        """Weights that were trained or given."""
        return Path(self.record.outputs('train')['checkpoint'])

    @property
    def overrides(self) -> list[str]:
        """Overrides of the config as options of another tool."""
        return ['--cfg-options', *self.args.cfg_texts] if self.args.cfg_texts else []

    def train(self) -> dict[str, Any]:
        """Train through OpenMIM, or take the weights that are given."""
        from mmsnnet.results.fingerprint import fingerprint_file

        if self.args.checkpoint is not None:
            path = Path(self.args.checkpoint).resolve()
        else:
            folder = self.out / TRAINING
            forget_lost_checkpoint(folder)
            host = self.identity['config'].get('default_scope') or 'mmseg'
            command = ['-m', 'mim', 'train', host, self.config, '--work-dir', folder, '--resume']
            if self.args.gpus:
                command += ['--launcher', 'pytorch', '--gpus', self.args.gpus]
            run_tool('training', [*command, *self.overrides], folder / 'train.log')
            path = last_checkpoint(folder)
        return dict(checkpoint=str(path), sha256=fingerprint_file(path))

    def measure(self) -> dict[str, Any]:
        """Measure milliseconds of every stitch."""
        command = [ROOT / 'tools' / 'measure_latency.py', self.config, self.checkpoint]
        for name in ('device', 'threads'):
            if getattr(self.args, name) is not None:
                command += [f'--{name}', getattr(self.args, name)]
        run_tool('measuring', [*command, '--out', self.out / LATENCY, *self.overrides])
        return self._hash(LATENCY)

    def sweep(self) -> dict[str, Any]:
        """Score stitches."""
        command = [ROOT / 'tools' / 'test_all_stitches.py', self.config, self.checkpoint]
        command += ['--out', self.out / SWEEP, '--stitches', self.args.stitches]
        run_tool('scoring', [*command, *self.overrides])
        return self._hash(f'{SWEEP}/stitches.jsonl')

    def _hash(self, name: str) -> dict[str, str]:
        from mmsnnet.results.fingerprint import fingerprint_file

        return dict(file=name, sha256=fingerprint_file(self.out / name))

    def chooser(self) -> Any:
        """What is known of the stitches."""
        from mmsnnet.results.chooser import chooser_of_results

        latency = self.out / LATENCY if self.args.ms is not None else None
        return chooser_of_results(self.out / SWEEP, latency, self.args.metric)

    @property
    def budget(self) -> dict[str, Any]:
        """Question that the stitch answers."""
        names = ('gflops', 'ms', 'min_metric')
        values = {key: getattr(self.args, key) for key in names}
        return {key: value for key, value in values.items() if value is not None}

    def choose(self) -> dict[str, Any]:
        """Choose the stitch for the budget."""
        from choose_stitch import to_row

        chooser = self.chooser()
        if self.args.min_metric is not None:
            chosen = chooser.reaching(self.args.min_metric)
        else:
            chosen = chooser.within(**self.budget)
        return to_row(chosen, chooser.metric)

    def export(self) -> dict[str, Any]:
        """Write the folder of the model."""
        command = [ROOT / 'tools' / 'export_stitch.py', self.config, self.checkpoint, '--out']
        command += [self.out / MODEL, '--stitch', self.record.outputs('choose')['name']]
        command += ['--results', self.out / SWEEP, '--overwrite']
        command += ['--metric', self.args.metric] if self.args.metric else []
        run_tool('export', [*command, *self.export_options(), *self.overrides])
        return self.files()

    def export_options(self) -> list[str]:
        """Options of the export; lower precision is checked on images of the data, not on noise."""
        import export_stitch

        parsed = export_stitch.parse_args(['CONFIG', 'FILE', '--out', 'DIR', *self.args.export])
        if not (parsed.int8 or parsed.fp16) or parsed.check_data is not None:
            return self.args.export
        return [*self.args.export, '--check-data', str(CHECKED_IMAGES)]

    def files(self) -> dict[str, Any]:
        """Files of the model with their bytes and hashes; none where there is no model."""
        from mmsnnet.results.fingerprint import fingerprint_file

        paths = sorted(path for path in (self.out / MODEL).glob('*') if path.is_file())
        return {
            path.name: dict(bytes=path.stat().st_size, sha256=fingerprint_file(path))
            for path in paths
        }

    def verify(self) -> dict[str, Any]:
        """Compare what lies on the disk with the stitched model, loaded anew; agreement by file."""
        from mmsnnet.apis import init_model
        from mmsnnet.apis.model_config import load_model_config
        from mmsnnet.deploy import load
        from mmsnnet.deploy.check_data import DataCheck
        from mmsnnet.deploy.verification import check_extracted, check_file, metadata_of

        model = init_model(
            str(self.config), self.checkpoint, cfg_options=self.args.cfg_options,
            results=self.out / SWEEP, metric=self.args.metric,
        )  # fmt: skip
        folder = self.out / MODEL
        extracted = load(folder)
        found = {'checkpoint': str(check_extracted(model, extracted, extracted.stitch_metadata))}
        cfg = load_model_config(str(self.config), self.args.cfg_options)
        for path in sorted(p for p in folder.iterdir() if p.suffix in ('.onnx', '.xml', '.pt2')):
            metadata = metadata_of(path)
            images = DataCheck(cfg, model, metadata, CHECKED_IMAGES).images
            found[path.name] = str(check_file(model, path, images, metadata, path.name))
        return found

    def report(self) -> dict[str, Any]:
        """Write the report."""
        from mmsnnet.results.files import write_atomically

        write_atomically(self.out / REPORT, report_text(self, SWEEP, MODEL).encode())
        return self._hash(REPORT)

    def stages(self) -> list[tuple[str, Any, Any]]:
        """Name, inputs (a function, since they hold outputs of stages before), and work of each."""
        outputs = self.record.outputs
        weights = lambda: outputs('train')['sha256']  # noqa: E731
        measured = lambda: outputs('latency') if self.args.ms is not None else None  # noqa: E731
        setting = dict(device=self.args.device, threads=self.args.threads)
        stages = [
            ('train', lambda: self.identity, self.train),
            ('latency', lambda: dict(setting, weights=weights()), self.measure),
            ('sweep', lambda: dict(weights=weights(), stitches=self.args.stitches), self.sweep),
            (
                'choose',
                lambda: dict(self.budget, metric=self.args.metric, sweep=outputs('sweep'),
                             latency=measured()),
                self.choose,
            ),
            (
                'export',
                lambda: dict(weights=weights(), stitch=outputs('choose')['name'],
                             sweep=outputs('sweep'), options=self.args.export),
                self.export,
            ),
            ('verify', lambda: dict(files=outputs('export'), weights=weights()), self.verify),
            (
                'report',
                lambda: {name: outputs(name) for name in ('choose', 'sweep', 'verify', 'export')},
                self.report,
            ),
        ]  # fmt: skip
        return [one for one in stages if one[0] != 'latency' or self.args.ms is not None]

    def is_whole(self, name: str) -> bool:
        """Whether the files that a done stage left are still there as it left them."""
        from mmsnnet.results.fingerprint import fingerprint_file

        if name == 'export':
            return self.files() == self.record.outputs(name)
        left = self.record.outputs(name)
        path = left.get('checkpoint') if name == 'train' else left.get('file')
        if name in ('choose', 'verify'):
            return True
        path = self.out / path
        return path.is_file() and fingerprint_file(path) == left['sha256']


def last_checkpoint(folder: Path) -> Path:
    """Checkpoint that a training ended with.

    Raises:
        FileNotFoundError: If it wrote none.
    """
    note = folder / 'last_checkpoint'
    path = Path(note.read_text().strip()) if note.is_file() else note
    path = path if path.is_file() else folder / path.name
    if not note.is_file() or not path.is_file():
        raise FileNotFoundError(
            f'The training in {folder} left no checkpoint: give the config a CheckpointHook.'
        )
    return path


def forget_lost_checkpoint(folder: Path) -> None:
    """Take MMEngine's note of the last checkpoint away where that is gone: begin anew then."""
    note = folder / 'last_checkpoint'
    if note.is_file() and not Path(note.read_text().strip()).is_file():
        note.unlink()


def run(job: Job) -> None:
    """Do all stages that are not done."""
    stages = job.stages()
    for number, (name, inputs, work) in enumerate(stages, 1):
        known = inputs()
        if job.record.is_done(name, known) and not job.is_whole(name):
            job.record.forget(name)
        say(f'{number}/{len(stages)} {name}')
        if not job.record.run(name, known, work):
            say('    done already')


def say(text: str) -> None:
    """Tell what is being done."""
    _cli.say('make_model', text)


def result_lines(job: Job) -> list[str]:
    """Lines that say what was made."""
    chosen: Mapping[str, Any] = job.record.outputs('choose')
    values = ', '.join(
        f'{value:.4g} {key}'
        for key, value in chosen.items()
        if isinstance(value, float)
    )  # fmt: skip
    return [f'{chosen["name"]}: {values}', str(job.out / MODEL), str(job.out / REPORT)]


@_cli.command('make_model')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    os.environ.setdefault('PYTHONWARNINGS', 'ignore')
    with _cli.libraries_quiet():
        job = Job(args)
        with _stages.locked(job.out / LOCK):
            job.read_record()
            run(job)
    with _cli.output() as out:
        out.writelines(f'{line}\n' for line in result_lines(job))
    return 0


if __name__ == '__main__':
    sys.exit(main())
