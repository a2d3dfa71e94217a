"""Puts a StitchedViT into configs that MMSegmentation and MMDetection ship; tells what happened.

Of mmseg every config with a plain ViT, of mmdet one of each kind of detector: the backbone is
replaced by two tiny anchors, what the error messages say is put into the config, and the model
takes one training step with the config's own optimizer and tests a few stitches. Heads, losses
and inference are the config's; images are noise.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import _drop_in_mmdet
import _drop_in_mmseg
from _drop_in import Outcome

HOSTS = {'mmseg': _drop_in_mmseg, 'mmdet': _drop_in_mmdet}


def find_configs(package: str) -> list[Path]:
    """Configs of an installed package that are tried.

    Raises:
        FileNotFoundError: If the package carries no configs.
    """
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / '.mim' / 'configs' if spec else Path(package)
    if not folder.is_dir():
        raise FileNotFoundError(f'{package} is not installed with its configs ({folder}).')
    patterns = HOSTS[package].PATTERNS
    return [path for pattern in patterns for path in sorted(folder.glob(f'{pattern}.py'))]


def survey(path: Path, package: str) -> Outcome:
    """Put a StitchedViT into one config and see."""
    from mmengine import Config

    cfg = Config.fromfile(path)
    outcome = Outcome(f'{package}::{path.parent.name}/{path.name}', '')
    try:
        outcome.backbone = HOSTS[package].shrink(cfg)
        HOSTS[package].exercise(cfg, outcome)
    except Exception as error:  # whatever a config of others can meet
        reason = (str(error).strip() or 'no reason given').splitlines()[0]
        outcome.error = f'{type(error).__name__}: {reason}'
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as a table in Markdown."""
    lines = ['| config | backbone before | to write beside it | result |', '|---|---|---|---|']
    for one in outcomes:
        changes = '<br>'.join(f'`{change}`' for change in one.changes) or 'nothing'
        tested = 'trained a step, tested ' + ', '.join(one.stitches)
        lines.append(f'| {one.name} | {one.backbone} | {changes} | {one.error or tested} |')
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 1 if a config did not work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=None, help='file for the table (default: the terminal)')
    parser.add_argument('--only', default='', help='part of the names of the configs to try')
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger
    from rich.console import Console
    from rich.progress import track

    import mmsnnet  # noqa: F401 - registers the backbone

    found = [(path, package) for package in HOSTS for path in find_configs(package)]
    found = [(path, package) for path, package in found if args.only in str(path)]
    MMLogger.get_current_instance().setLevel('ERROR')
    outcomes = [survey(*one) for one in track(found, 'configs', console=Console(stderr=True))]
    if args.out:
        Path(args.out).write_text(table(outcomes), encoding='utf-8')
    else:
        sys.stdout.write(table(outcomes))
    return int(any(outcome.error for outcome in outcomes))


if __name__ == '__main__':
    sys.exit(main())
