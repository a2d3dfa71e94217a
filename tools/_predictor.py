"""Trained models as the demos run them: a picture in, a map out, and how long it took."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _cli
import numpy as np

#: Suffixes of files that ``mmsnnet.runtime`` runs; anything else is a config.
FILE_SUFFIXES = ('.onnx', '.xml')
#: Most stitches that a controller climbs over: each costs seconds of measuring at the start.
MAX_RUNGS = 8
#: Stitches are timed in rounds of all of them: so many, and more within so many milliseconds.
LEAST_ROUNDS, MOST_ROUNDS, MEASURED_MS = 3, 20, 3000


@dataclass(frozen=True)
class Prediction:
    """What a stitch made of a picture.

    Attributes:
        stitch: Its name.
        map: Class numbers (H, W) as int64, or depths (H, W) as float32, at the picture's size.
        ms: Milliseconds that it took, from the picture to the map.
    """

    stitch: str
    map: np.ndarray
    ms: float


class Predictor:
    """A model with a choice of stitches. One thread at a time may use it.

    Args:
        title: What to call the model.
        task: 'segmentation' or 'depth'.
        chooser: What is known of its stitches.
        classes: Names of the classes.
        palette: Colour (r, g, b) of each class.
        image_size: (height, width) in pixels of the pictures that it was made for.
        anchors: Number of blocks of each anchor by label, from cheap to costly; None where it is
            not known.

    Raises:
        ValueError: If the task is another.

    Attributes:
        title, task, chooser, classes, palette, image_size, anchors: See above.
    """

    def __init__(
        self,
        title: str,
        task: str,
        chooser: Any,
        classes: Iterable[str] | None = (),
        palette: Any = (),
        image_size: tuple[int, int] = (224, 224),
        anchors: Mapping[str, int] | None = None,
    ) -> None:
        if task not in ('segmentation', 'depth'):
            raise ValueError(
                f'{title} gives {task}; the demos show models of segmentation and of depth.'
            )
        self.title, self.task, self.chooser = title, task, chooser
        self.image_size, self.anchors = image_size, anchors
        self.classes = tuple(map(str, classes or ()))
        self.palette = np.array(palette or [], dtype=np.uint8).reshape(-1, 3)

    def _run(self, picture: np.ndarray, stitch: str) -> np.ndarray:
        """Map of a picture, by whatever runs the model."""
        raise NotImplementedError

    def predict(
        self,
        picture: np.ndarray,
        stitch: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Prediction:
        """Run a stitch.

        Args:
            picture: uint8 (H, W, 3) in the order red, green, blue.
            stitch: Name of the stitch.
            clock: Seconds.

        Raises:
            ValueError: If the model has no such stitch.
        """
        start = clock()
        found = self._run(picture, stitch)
        return Prediction(stitch, found, 1000 * (clock() - start))

    def measure(self, picture: np.ndarray, stitches: Iterable[str]) -> dict[str, float]:
        """Least milliseconds of each stitch on a picture.

        The stitches run in turn, so that a load that comes and goes meets all of them; what
        their first run pays for is not counted.
        """
        names, rounds = list(stitches), []
        for name in names:
            self.predict(picture, name)
        while len(rounds) < LEAST_ROUNDS or (
            len(rounds) < MOST_ROUNDS and sum(map(sum, rounds)) < MEASURED_MS
        ):
            rounds.append([self.predict(picture, name).ms for name in names])
        return dict(zip(names, map(min, zip(*rounds))))

    def learn_latency(self) -> None:
        """Measure all stitches on a picture of noise; the chooser then knows their milliseconds."""
        shape = (*self.image_size, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        latency = self.measure(noise, [one.name for one in self.chooser.candidates])
        known = [replace(one, ms=latency[one.name]) for one in self.chooser.candidates]
        chooser = self.chooser
        self.chooser = type(chooser)(known, chooser.metric, chooser.rule, chooser.certainty)

    def ladder(self) -> list[str]:
        """Stitches worth choosing among by budget, from cheap to costly, at most ``MAX_RUNGS``.

        They lie on the front where the stitches were scored, and are spread over their costs
        otherwise.
        """
        scored = any(one.quality == one.quality for one in self.chooser.candidates)
        if self.chooser.metric is not None and scored:
            rungs = [one.name for one in self.chooser.front()]
        else:
            ordered = sorted(self.chooser.candidates, key=lambda one: one.flops)
            rungs = [one.name for one in ordered]
        if len(rungs) <= MAX_RUNGS:
            return rungs
        places = np.linspace(0, len(rungs) - 1, MAX_RUNGS).round().astype(int)
        return [rungs[place] for place in places]


class TorchPredictor(Predictor):
    """A stitched model, or one stitch taken out of it, by the host's own ``inference_model``."""

    def __init__(
        self,
        model: Any,
        title: str,
        chooser: Any,
        image_size: tuple[int, int] = (224, 224),
        anchors: Mapping[str, int] | None = None,
    ) -> None:
        from mmsnnet.deploy.inference import task_of

        meta = getattr(model, 'dataset_meta', None) or {}
        classes, palette = meta.get('classes'), meta.get('palette')
        super().__init__(title, task_of(model), chooser, classes, palette, image_size, anchors)
        self._model = model

    def _run(self, picture: np.ndarray, stitch: str) -> np.ndarray:
        from mmseg.apis import inference_model

        if hasattr(self._model, 'select_stitch'):
            self._model.select_stitch(stitch)
        else:
            _ = self.chooser[stitch]
        # The loaders of OpenMMLab give blue, green, red.
        result = inference_model(self._model, np.ascontiguousarray(picture[..., ::-1]))
        if self.task == 'depth':
            return result.pred_depth_map.data[0].float().cpu().numpy()
        return result.pred_sem_seg.data[0].long().cpu().numpy()


class FilePredictor(Predictor):
    """A file of ``tools/export_stitch.py``, run without torch.

    Pictures are resized to the size that the file was exported for, and its output back to
    theirs, both bilinearly.
    """

    def __init__(self, file: str, threads: int | None = None) -> None:
        from mmsnnet.runtime import StitchSession

        self._session = StitchSession(file, threads=threads)
        self._meta = self._session.metadata
        super().__init__(
            Path(file).name,
            self._meta.task,
            self._session.chooser(),
            self._meta.classes,
            self._meta.palette,
            self._meta.image_size,
            dict(self._meta.anchors),
        )

    def _run(self, picture: np.ndarray, stitch: str) -> np.ndarray:
        import cv2

        size = picture.shape[:2]
        height, width = self._meta.image_size
        if not self._meta.preprocessing:
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        if self._meta.channel_order == 'bgr':
            picture = picture[..., ::-1]
        output = self._session(np.ascontiguousarray(picture), stitch)
        output = output[0] if isinstance(output, tuple) else output
        return self._to_map(output[0], size)

    def _to_map(self, output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Map of a size of an output (C, h, w) or (h, w)."""
        import cv2

        if self.task == 'segmentation' and output.dtype.kind in 'iu':  # labels already
            labels = output.reshape(output.shape[-2:]).astype(np.int32)
            return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
        planes = output.reshape(-1, *output.shape[-2:]).astype(np.float32)
        if self.task == 'depth':
            return cv2.resize(planes[0], size[::-1])
        if len(planes) == 1:  # the logit of the second of two classes
            return (cv2.resize(planes[0], size[::-1]) > 0).astype(np.int64)
        return argmax_resized(planes, size)


def argmax_resized(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Number of the largest plane at each pixel (H, W) of planes (C, h, w) resized to a size.

    One plane at a time: 150 classes at the size of a photograph fill gigabytes.
    """
    import cv2

    best = cv2.resize(planes[0], size[::-1])
    labels = np.zeros(size, np.int64)
    for number, plane in enumerate(planes[1:], 1):
        resized = cv2.resize(plane, size[::-1])
        np.copyto(labels, number, where=resized > best)
        np.maximum(best, resized, out=best)
    return labels


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`load_predictor` reads."""
    parser.add_argument(
        'model',
        nargs='+',
        metavar='CONFIG CKPT | FILE | DIR',
        help='config and checkpoint of a stitched model, an exported .onnx or .xml file, or the '
        'folder of an extracted stitch',
    )
    parser.add_argument('--results', metavar='DIR', help='results folder of test_all_stitches.py')
    parser.add_argument('--latency', metavar='FILE', help='file of measure_latency.py')
    parser.add_argument(
        '--measure',
        action='store_true',
        help='in place of --latency: run every stitch a few times first, for budgets in ms',
    )
    parser.add_argument('--metric', help='metric to choose by (default: that of the sweep)')
    parser.add_argument('--device', default='cpu', help='of a torch model (default: cpu)')
    parser.add_argument('--threads', type=int, help='to compute with (default: all)')
    _cli.add_config_options(parser)


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Model that the command line names.

    Raises:
        FileNotFoundError: If a file is missing.
        ImportError: If what runs an exported file is not installed.
        ValueError: If arguments do not go together, or a file is not what it should be.
    """
    if args.threads is not None and args.threads < 1:
        raise ValueError(f'--threads {args.threads} is not possible: it must be 1 or more.')
    if args.measure and args.latency is not None:
        raise ValueError('--measure stands in place of --latency: leave one of them out.')
    predictor = _load(list(args.model), args)
    if args.measure:
        predictor.learn_latency()
    return predictor


def _load(given: Sequence[str], args: argparse.Namespace) -> Predictor:
    if len(given) == 1 and (given[0].endswith(FILE_SUFFIXES) or Path(given[0]).is_dir()):
        only_stitched = [
            f'--{name.replace("_", "-")}'
            for name in ('results', 'latency', 'metric', 'cfg_options')
            if getattr(args, name) is not None
        ]
        if only_stitched:
            raise ValueError(
                f'{", ".join(only_stitched)} go with CONFIG CKPT: {given[0]} holds what was known '
                'of its stitches when it was exported.'
            )
        if Path(given[0]).is_dir():
            return _load_extracted(given[0], args)
        return FilePredictor(given[0], args.threads)
    if len(given) != 2:
        raise ValueError(
            f'Give CONFIG and CKPT, one {" or ".join(FILE_SUFFIXES)} file, or the folder of an '
            f'extracted stitch; got {" ".join(given)}.'
        )
    return _load_stitched(*given, args)


def _load_stitched(config: str, checkpoint: str, args: argparse.Namespace) -> Predictor:
    from mmsnnet.apis import init_model
    from mmsnnet.models import find_stitched_backbone

    _set_threads(args.threads)
    model = init_model(
        config,
        checkpoint,
        device=args.device,
        cfg_options=args.cfg_options,
        results=args.results,
        latency=args.latency,
        metric=args.metric,
    )
    backbone = find_stitched_backbone(model)
    anchors = {one.label: one.depth for one in backbone.space.anchors}
    title = Path(config).stem
    return TorchPredictor(model, title, model.chooser, backbone.img_size, anchors)


def _load_extracted(folder: str, args: argparse.Namespace) -> Predictor:
    from mmsnnet.deploy.extraction import load
    from mmsnnet.runtime.session import chooser_of

    _set_threads(args.threads)
    model = load(folder, args.device)
    known = model.stitch_metadata
    return TorchPredictor(
        model, Path(folder).name, chooser_of(known), known.image_size, dict(known.anchors)
    )


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def pick_stitch(predictor: Predictor, args: argparse.Namespace) -> str:
    """Stitch that ``--stitch``, ``--gflops`` or ``--ms`` asks for; without them the costliest.

    Raises:
        ValueError: If more than one is given, or there is no such stitch.
    """
    asked = {key: getattr(args, key) for key in ('stitch', 'gflops', 'ms')}
    asked = {key: value for key, value in asked.items() if value is not None}
    if len(asked) > 1:
        raise ValueError(f'Give one of {", ".join(f"--{key}" for key in asked)}.')
    if 'stitch' in asked:
        return predictor.chooser[args.stitch].name
    if 'ms' in asked and any(one.ms is None for one in predictor.chooser.candidates):
        raise ValueError('--ms needs the latency here: add --measure, or --latency FILE.')
    if asked:
        return predictor.chooser.within(**asked).name
    return max(predictor.chooser.candidates, key=lambda one: one.flops).name


def add_stitch_arguments(parser: argparse.ArgumentParser) -> Any:
    """Add what :func:`pick_stitch` reads; returns the group."""
    which = parser.add_argument_group('which stitch (one of these; default: the costliest)')
    which.add_argument('--stitch', metavar='NAME', help='by name, such as S5-L14')
    which.add_argument('--gflops', type=float, help='the best within so many GFLOPs')
    which.add_argument('--ms', type=float, help='the best within so many measured milliseconds')
    return which


def describe(predictor: Predictor, stitch: str) -> str:
    """A stitch with its costs and quality, in one line."""
    one = predictor.chooser[stitch]
    text = f'{one.name}: {one.flops / 1e9:.4g} GFLOPs'
    if predictor.chooser.metric is not None and one.quality == one.quality:
        text += f', {predictor.chooser.metric} {one.quality:.4g}'
    return text
