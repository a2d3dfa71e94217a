"""Runs a stitched model on a video or a camera and writes the video with predictions over it.

With --deadline the stitch of each frame is chosen so that its prediction keeps the deadline: the
best that fits, as measured here at the start and observed since. No window is opened.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import _cli
import _predictor

#: Codec by suffix of the output: those that OpenCV's wheels can write everywhere.
CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='demo_video', description=__doc__.splitlines()[0])
    _predictor.add_model_arguments(parser)
    parser.add_argument(
        '--video', required=True, metavar='FILE | NUMBER', help='video, or number of a camera'
    )
    parser.add_argument('--out', required=True, metavar='FILE', help='.mp4 or .avi to write')
    parser.add_argument('--max-frames', type=int, help='end after so many frames')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    which = _predictor.add_stitch_arguments(parser)
    which.add_argument(
        '--deadline', type=float, metavar='MS', help='longest that the prediction of a frame '
        'may take; the stitch of each frame is chosen for it',
    )  # fmt: skip
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what cannot be done before a model is loaded.

    Raises:
        FileExistsError: If the output exists.
        ValueError: If arguments are not possible, or not together.
    """
    out = Path(args.out)
    if out.suffix.lower() not in CODECS:
        raise ValueError(f'--out {out} must end in {" or ".join(CODECS)}.')
    if out.exists() and not args.overwrite:
        raise FileExistsError(f'{out} exists already; give another --out, or --overwrite.')
    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f'--max-frames {args.max_frames} must be 1 or more.')
    if args.deadline is not None:
        others = [name for name in ('stitch', 'gflops', 'ms') if getattr(args, name) is not None]
        if others:
            raise ValueError(f'--deadline chooses the stitch: leave out --{others[0]}.')
        if not args.deadline > 0:
            raise ValueError(f'--deadline {args.deadline:g} must be above 0 ms.')


@contextmanager
def opencv_quiet() -> Iterator[None]:
    """Keep what OpenCV and FFmpeg say of a source off the terminal: its error is one line here."""
    import cv2

    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # read when FFmpeg is first used
    logs = cv2.utils.logging
    former = logs.getLogLevel()
    logs.setLogLevel(logs.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logs.setLogLevel(former)


class Video:
    """Frames of a video file or a camera.

    Args:
        source: File, or number of a camera.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no video, or there is no such camera.

    Attributes:
        fps: Frames a second, as the source says.
    """

    def __init__(self, source: str) -> None:
        import cv2

        camera = source.isdecimal()
        if not camera and not Path(source).is_file():
            raise FileNotFoundError(f'There is no video {source}.')
        self._capture = cv2.VideoCapture()
        with opencv_quiet(), suppress(cv2.error):  # such as of a number that is none of a camera
            self._capture.open(int(source) if camera else source)
        if not self._capture.isOpened():
            raise ValueError(
                f'There is no camera {source}.' if camera else f'{source} is no video.'
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 240 else 25.0

    def __iter__(self) -> Iterator[Any]:
        """Frames, uint8 (H, W, 3) in the order red, green, blue."""
        while True:
            there, frame = self._capture.read()
            if not there:
                return
            yield frame[..., ::-1].copy()

    def close(self) -> None:
        """Give the camera or the file back."""
        self._capture.release()


@contextmanager
def writing(out: Path, fps: float) -> Iterator[Any]:
    """A function that appends a picture (H, W, 3) to a video, which appears when all is written.

    Raises:
        ValueError: If the video cannot be written.
    """
    import cv2
    import numpy as np

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f'.{out.stem}.{os.getpid()}{out.suffix}')
    writer = None

    def append(picture: Any) -> None:
        nonlocal writer
        height, width = picture.shape[:2]
        # Codecs with halved colours take even sizes alone.
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
        if writer is None:
            codec = cv2.VideoWriter_fourcc(*CODECS[out.suffix.lower()])
            writer = cv2.VideoWriter(str(partial), codec, fps, picture.shape[1::-1])
            if not writer.isOpened():
                raise ValueError(f'OpenCV cannot write {out}; try the other of .mp4 and .avi.')
        writer.write(np.ascontiguousarray(picture[..., ::-1]))

    try:
        yield append
        if writer is not None:
            writer.release()
            os.replace(partial, out)
    finally:
        if writer is not None:
            writer.release()
        partial.unlink(missing_ok=True)


def controller_for(predictor: Any, frame: Any, deadline: float) -> Any:
    """Controller of a deadline over the stitches worth running, measured on a frame."""
    from mmsnnet.runtime import BudgetController

    latency = predictor.measure(frame, predictor.ladder())
    chooser, quality = predictor.chooser, None
    if chooser.metric is not None:
        sign = 1 if chooser.rule == 'greater' else -1
        known = {name: sign * chooser[name].quality for name in latency}
        quality = known if any(value == value for value in known.values()) else None
    return BudgetController(latency=latency, quality=quality, deadline_ms=deadline)


def run(predictor: Any, video: Video, args: argparse.Namespace, append: Any) -> list[str]:
    """Predict all frames; returns lines that say how it went.

    Raises:
        ValueError: If there are none.
    """
    import _overlay

    controller, limits, times, ran = None, None, [], Counter()
    fixed = None if args.deadline is not None else _predictor.pick_stitch(predictor, args)
    try:
        for frame in video:
            if not times:
                if fixed is None:
                    controller = controller_for(predictor, frame, args.deadline)
                else:
                    predictor.predict(frame, fixed)  # pays for what later calls find ready
            stitch = fixed or controller.stitch
            found = predictor.predict(frame, stitch)
            times.append(found.ms)
            ran[stitch] += 1
            if found.map.dtype.kind == 'f':
                limits = limits or _overlay.depth_range(found.map)
            painted = _overlay.paint(frame, found.map, predictor.palette, limits)
            append(_overlay.with_text(painted, [text_of(predictor, found, args.deadline)]))
            if controller is not None:
                controller.observe(found.ms)
            if len(times) == args.max_frames:
                break
    except KeyboardInterrupt:
        if not args.video.isdecimal():  # a recording of a camera ends like this
            raise
    if not times:
        raise ValueError(f'{args.video} has no frame that can be read.')
    return summary(times, ran, controller)


def text_of(predictor: Any, found: Any, deadline: float | None) -> str:
    """Line above a frame."""
    gflops = predictor.chooser[found.stitch].flops / 1e9
    text = f'{found.stitch}  {gflops:.3g} GFLOPs  {found.ms:5.1f} ms'
    return text if deadline is None else f'{text} of {deadline:g}'


def summary(times: Sequence[float], ran: Counter, controller: Any) -> list[str]:
    """What a run was like."""
    shares = ', '.join(f'{name} {count}' for name, count in ran.most_common())
    median = sorted(times)[len(times) // 2]
    lines = [f'{len(times)} frames, median {median:.1f} ms; frames of each stitch: {shares}']
    if controller is not None:
        lines.append(
            f'deadline {controller.deadline_ms:g} ms: {controller.misses} missed, '
            f'{controller.switches} switches'
        )
        if not controller.attainable:
            lines.append('even the cheapest stitch does not keep this deadline here')
    return lines


@_cli.command('demo_video')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    check_args(args)
    with closing(Video(args.video)) as video, _cli.libraries_quiet():
        predictor = _predictor.load_predictor(args)
        with writing(Path(args.out), video.fps) as append:
            lines = run(predictor, video, args, append)
    with _cli.output() as out:
        out.writelines(f'{line}\n' for line in [*lines, f'written: {args.out}'])
    return 0


if __name__ == '__main__':
    sys.exit(main())
