"""Runs a stitch on pictures and writes them with the prediction over them.

The model is a stitched one (CONFIG CKPT), an exported file (model.onnx) or the folder of an
extracted stitch. Each picture is written with the stitch, its GFLOPs and the milliseconds it took.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _cli
import _picture_file
import _predictor


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='demo_image', description=__doc__.splitlines()[0])
    _predictor.add_model_arguments(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='FILE', help='pictures')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument(
        '--side-by-side',
        action='store_true',
        help='beside the chosen stitch also the cheapest and the costliest',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    _predictor.add_stitch_arguments(parser)
    return parser.parse_args(argv)


def targets_of(args: argparse.Namespace) -> dict[Path, Path]:
    """File to write for each picture.

    Raises:
        FileExistsError: If one exists and is not to be replaced.
        ValueError: If two pictures would become one file.
    """
    targets = {Path(one): Path(args.out) / f'{Path(one).stem}.png' for one in args.images}
    names = list(targets.values())
    twice = [one for one in names if names.count(one) > 1]
    if twice:
        raise ValueError(f'Several pictures would be written to {twice[0]}: rename one of them.')
    taken = [one for one in names if one.exists()]
    if taken and not args.overwrite:
        raise FileExistsError(f'{taken[0]} exists already; give another --out, or --overwrite.')
    return targets


def picture_of(predictor: Any, picture: Any, stitches: Sequence[str]) -> tuple[Any, list[str]]:
    """Predictions of stitches side by side, and a line about each."""
    import _overlay
    import numpy as np

    panels, lines, limits = [], [], None
    for name in stitches:
        found = predictor.predict(picture, name)
        if found.map.dtype.kind == 'f':
            limits = limits or _overlay.depth_range(found.map)
        panels.append(_overlay.paint(picture, found.map, predictor.palette, limits))
        lines.append(f'{_predictor.describe(predictor, name)}, {found.ms:.1f} ms')
    texts = [line.replace(': ', ', ', 1).split(', ') for line in lines]
    panels = [_overlay.with_text(one, text) for one, text in zip(panels, texts)]
    height = max(len(one) for one in panels)
    panels = [np.pad(one, ((height - len(one), 0), (0, 0), (0, 0))) for one in panels]
    return np.concatenate(panels, axis=1), lines


@_cli.command('demo_image')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    targets = targets_of(args)
    pictures = {path: _picture_file.read_picture(path) for path in targets}
    with _cli.libraries_quiet():
        predictor = _predictor.load_predictor(args)
    stitches = [_predictor.pick_stitch(predictor, args)]
    if args.side_by_side:
        ordered = sorted(predictor.chooser.candidates, key=lambda one: one.flops)
        stitches = list(dict.fromkeys([ordered[0].name, *stitches, ordered[-1].name]))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for path, target in targets.items():
        with _cli.libraries_quiet():
            for name in stitches:  # the first call of each pays for what later ones find ready
                predictor.predict(pictures[path], name)
            shown, lines = picture_of(predictor, pictures[path], stitches)
        write_picture(target, shown)
        with _cli.output() as out:
            out.writelines(f'{target}: {line}\n' for line in lines)
    return 0


def write_picture(target: Path, picture: Any) -> None:
    """Write a picture (H, W, 3) in the order red, green, blue as PNG."""
    import cv2

    target.write_bytes(cv2.imencode('.png', picture[..., ::-1])[1].tobytes())


if __name__ == '__main__':
    sys.exit(main())
