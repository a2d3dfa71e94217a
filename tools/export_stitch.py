"""Takes a stitch, or all of them, out of a trained model: a checkpoint and files to deploy.

One stitch becomes a folder with its weights, a config and stitch.json, which MMSegmentation and
MMDetection load like any other model; --onnx and the like add files beside them. --all-stitches
writes one ONNX file of which an integer input chooses the stitch. Nothing appears on the disk
before it has been compared with the stitched model.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _cli

#: Forms of an ONNX file by their options.
FORMS = {'onnx': 'fp32', 'int8': 'int8', 'fp16': 'fp16', 'openvino': 'openvino', 'pt2': 'pt2'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='export_stitch', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of the stitched model')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write')
    which = parser.add_argument_group('which stitch (one of these)')
    which.add_argument('--stitch', metavar='NAME', help='by name, such as S5-L14')
    which.add_argument('--gflops', type=float, help='the best within so many GFLOPs of the model')
    which.add_argument('--ms', type=float, help='the best within so many milliseconds')
    which.add_argument('--min-metric', type=float, help='the cheapest that is as good as this')
    which.add_argument(
        '--all-stitches', action='store_true', help='all of them, in one ONNX file'
    )
    parser.add_argument(
        '--stitches',
        default='all',
        metavar='all|front|anchors|spread:N|NAME,...',
        help='with --all-stitches: those that the file holds (default: all)',
    )
    parser.add_argument('--results', metavar='DIR', help='results folder of test_all_stitches.py')
    parser.add_argument('--latency', metavar='FILE', help='file of measure_latency.py')
    parser.add_argument('--metric', help='metric to choose by (default: that of the sweep)')
    parser.add_argument(
        '--format',
        choices=('safetensors', 'mmengine'),
        default='safetensors',
        help='of the checkpoint (default: safetensors)',
    )
    forms = parser.add_argument_group('files beside the checkpoint')
    forms.add_argument('--onnx', action='store_true', help='ONNX in float32, dynamic batch')
    forms.add_argument('--int8', action='store_true', help='ONNX, matrix products in int8')
    forms.add_argument('--fp16', action='store_true', help='ONNX in float16')
    forms.add_argument('--openvino', action='store_true', help='OpenVINO in float32')
    forms.add_argument('--pt2', action='store_true', help="torch.export's own format")
    forms.add_argument(
        '--size', type=int, nargs='+', metavar=('H', 'W'), help='of the images (default: img_size)'
    )
    forms.add_argument(
        '--with-preprocessing',
        action='store_true',
        help='pictures of any size in (uint8), labels or depth out',
    )
    forms.add_argument(
        '--dynamic-size', action='store_true', help='images of any size in, where that is exact'
    )
    forms.add_argument(
        '--check-data',
        type=int,
        metavar='N',
        help="check, score and time the files on N images of the config's test data set",
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing folder')
    _cli.add_config_options(parser)
    return parser.parse_args(argv)


def say(text: str) -> None:
    """Tell what is being done."""
    _cli.say('export_stitch', text)


def choose(args: argparse.Namespace, model: Any) -> list[str]:
    """Names of the stitches to export.

    Raises:
        ValueError: If not exactly one question is asked, or it has no answer.
    """
    from mmsnnet.models import find_stitched_backbone
    from mmsnnet.stitching import select_stitches

    questions = {key: getattr(args, key) for key in ('stitch', 'gflops', 'ms', 'min_metric')}
    asked = [f'--{key.replace("_", "-")}' for key, value in questions.items() if value is not None]
    asked += ['--all-stitches'] if args.all_stitches else []
    if len(asked) != 1:
        raise ValueError(
            'Say which stitch, by one of --stitch, --gflops, --ms, --min-metric and '
            f'--all-stitches; got {", ".join(asked) or "none"}.'
        )
    backbone = find_stitched_backbone(model)
    space = backbone.space
    if args.all_stitches:
        if args.stitches == 'front':
            return [one.name for one in model.chooser.front()]
        chosen = select_stitches(space, backbone.costs.flops, args.stitches)
        return [stitch.name for stitch in chosen]
    if args.stitch is not None:
        return [space[args.stitch].name]
    if args.min_metric is not None:
        return [model.chooser.reaching(args.min_metric).name]
    return [model.chooser.within(gflops=args.gflops, ms=args.ms).name]


def export(args: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Export what the command line asks for.

    Args:
        args: Command line.
        report: Called with a line for each thing that is done.

    Raises:
        FileExistsError: If the folder exists already.
        FileNotFoundError: If a file is missing.
        ImportError: If a library is missing.
        ValueError: If there is no such stitch, or a file does not agree with the model.
    """
    from mmsnnet.apis import init_model
    from mmsnnet.apis.model_config import load_model_config
    from mmsnnet.deploy.description import as_exported, describe, hash_of_file
    from mmsnnet.evaluation.cost.model_cost import model_costs
    from mmsnnet.models import find_stitched_backbone

    if Path(args.out).exists() and not args.overwrite and any(Path(args.out).iterdir()):
        raise FileExistsError(f'{args.out} exists already; give another --out, or --overwrite.')
    check_forms(args)
    say(f'loading {args.checkpoint}')
    model = init_model(
        args.config,
        args.checkpoint,
        cfg_options=args.cfg_options,
        results=args.results,
        latency=args.latency,
        metric=args.metric,
    )
    backbone = find_stitched_backbone(model)
    size = tuple(args.size * 2)[:2] if args.size else backbone.img_size
    names = choose(args, model)
    metadata = describe(
        model,
        names,
        model_costs(model, size),
        size,
        model.chooser if args.results else None,
        source=dict(checkpoint=Path(args.checkpoint).name, sha256=hash_of_file(args.checkpoint)),
    )
    metadata = as_exported(metadata, model, args.with_preprocessing, args.dynamic_size)
    config = load_model_config(args.config, args.cfg_options)
    checked = checks_on_data(args, model, config, metadata)
    if args.all_stitches:
        write_all(args, model, metadata, checked, report)
    else:
        write_one(args, model, config, metadata, checked, report)


def check_forms(args: argparse.Namespace) -> None:
    """Refuse sizes that are none, and options of files that are not asked for.

    Raises:
        ValueError: If there are some.
    """
    if args.size and len(args.size) > 2:
        raise ValueError(f'--size takes a height and a width, or one side; got {args.size}.')
    if args.stitches != 'all' and not args.all_stitches:
        raise ValueError('--stitches says what a file of --all-stitches holds: give that too.')
    for option in ('with_preprocessing', 'dynamic_size', 'check_data'):
        if getattr(args, option) and not args.all_stitches and not forms_of(args):
            forms = ', '.join(f'--{form}' for form in FORMS)
            raise ValueError(
                f'--{option.replace("_", "-")} is of exported files: ask for one of {forms}.'
            )


def checks_on_data(
    args: argparse.Namespace, model: Any, config: Any, metadata: Any
) -> dict[str, Any]:
    """Arguments of ``export_onnx`` for --check-data."""
    if args.check_data is None:
        return {}
    from mmsnnet.deploy.check_data import DataCheck

    check = DataCheck(config, model, metadata, args.check_data)
    return dict(images=check.images, score=check.score)


def forms_of(args: argparse.Namespace) -> list[str]:
    """Forms of ONNX file that are asked for."""
    return [form for option, form in FORMS.items() if getattr(args, option)]


def write_one(
    args: argparse.Namespace,
    model: Any,
    config: Any,
    metadata: Any,
    checked: dict[str, Any],
    report: Any,
) -> None:
    """Write the folder of one stitch."""
    from mmsnnet.deploy.export import export_onnx
    from mmsnnet.deploy.extraction import extract, save_extracted
    from mmsnnet.deploy.verification import check_extracted

    entry = metadata.stitches[0]
    say(f'extracting {entry.name}')
    extracted, fixed = extract(model, config, entry.name)
    agreement = check_extracted(model, extracted, metadata)

    def add_forms(folder: Path) -> None:
        forms = forms_of(args)
        if forms:
            path = folder / 'model.onnx'
            say('tracing its graph')
            export_onnx(
                model, metadata, path, forms, report=report, progress=say, **checked
            )

    report(
        f'{entry.name}: {entry.flops / 1e9:.4g} GFLOPs, {entry.params / 1e6:.4g} M parameters of '
        f'the whole model; {agreement}'
    )
    said = dataclasses.replace(metadata, checks=dict(agreement=agreement.as_dict()))
    outputs = tuple('logits' if one == 'labels' else one for one in said.outputs)
    said = dataclasses.replace(said, outputs=outputs, preprocessing=False, dynamic_size=True)
    save_extracted(
        args.out, extracted, fixed, said, args.format, args.overwrite, check=add_forms
    )


def write_all(
    args: argparse.Namespace, model: Any, metadata: Any, checked: dict[str, Any], report: Any
) -> None:
    """Write the folder of one file for many stitches."""
    from mmsnnet.deploy.export import export_onnx
    from mmsnnet.deploy.extraction import METADATA_NAME, new_folder

    forms = list(dict.fromkeys(['fp32', *forms_of(args)]))
    with new_folder(args.out, args.overwrite) as folder:
        path = folder / 'all_stitches.onnx'
        say(f'tracing one graph of {len(metadata.stitches)} stitches')
        export_onnx(model, metadata, path, forms, report=report, progress=say, **checked)
        (folder / METADATA_NAME).write_text(metadata.to_json() + '\n', encoding='utf-8')
    report(f'{len(metadata.stitches)} stitches in one file')


@_cli.command('export_stitch')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    with _cli.lines_at_once() as report:
        with _cli.libraries_quiet():
            export(args, report)
        report(f'written: {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
