"""Trained models as the demos run them: a picture in, a map out, and how long it took."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _cli
import numpy as np

#: Suffixes of files that ``mmsnnet.runtime`` runs; anything else is a config.
FILE_SUFFIXES = ('.onnx', '.xml')
#: Most stitches that a controller climbs over: each costs seconds of measuring at the start.
MAX_RUNGS = 8


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
    """A model with a choice of stitches.

    Attributes:
        task: 'segmentation' or 'depth'.
        chooser: What is known of its stitches.
        classes: Names of the classes.
        palette: Colour (r, g, b) of each class.
        title: What to call the model.
    """

    task: str
    chooser: Any
    classes: tuple[str, ...]
    palette: np.ndarray
    title: str

    def __init__(self, title: str, task: str, chooser: Any, classes: Any, palette: Any) -> None:
        if task not in ('segmentation', 'depth'):
            raise ValueError(
                f'{title} gives {task}; the demos show models of segmentation and of depth.'
            )
        self.title, self.task, self.chooser = title, task, chooser
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

    def measure(
        self, picture: np.ndarray, stitches: Iterable[str], repeats: int = 3
    ) -> dict[str, float]:
        """Least milliseconds of each stitch on a picture, out of some runs after one to warm up."""
        return {
            name: min(self.predict(picture, name).ms for _ in range(repeats + 1))
            for name in stitches
        }

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

    def __init__(self, model: Any, title: str, chooser: Any) -> None:
        from mmsnnet.deploy.inference import task_of

        meta = getattr(model, 'dataset_meta', None) or {}
        super().__init__(
            title, task_of(model), chooser, meta.get('classes'), meta.get('palette')
        )
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
        )

    def _run(self, picture: np.ndarray, stitch: str) -> np.ndarray:
        import cv2

        size = picture.shape[:2]
        self._session.set_stitch(stitch)
        height, width = self._meta.image_size
        if not self._meta.preprocessing:
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        if self._meta.channel_order == 'bgr':
            picture = picture[..., ::-1]
        output = self._session(np.ascontiguousarray(picture))
        output = output[0] if isinstance(output, tuple) else output
        return self._to_map(output[0], size)

    def _to_map(self, output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Map of a size of an output (C, h, w) or (h, w)."""
        import cv2

        if self.task == 'segmentation' and output.dtype.kind in 'iu':  # labels already
            labels = output.reshape(output.shape[-2:]).astype(np.int32)
            return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
        planes = output.reshape(-1, *output.shape[-2:]).astype(np.float32)
        planes = np.stack([cv2.resize(one, size[::-1]) for one in planes])
        if self.task == 'depth':
            return planes[0]
        # A single plane is the logit of the second of two classes.
        return planes.argmax(0) if len(planes) > 1 else (planes[0] > 0).astype(np.int64)


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
    given = list(args.model)
    if args.threads is not None and args.threads < 1:
        raise ValueError(f'--threads {args.threads} is not possible: it must be 1 or more.')
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
    return TorchPredictor(model, Path(config).stem, model.chooser)


def _load_extracted(folder: str, args: argparse.Namespace) -> Predictor:
    from mmsnnet.deploy.extraction import load
    from mmsnnet.results.candidate import Candidate
    from mmsnnet.results.chooser import Chooser

    _set_threads(args.threads)
    model = load(folder, args.device)
    known = model.stitch_metadata
    (entry,) = known.stitches
    quality = entry.metrics.get(known.metric)
    quality = float('nan') if quality is None else quality
    one = Candidate(
        entry.name, entry.family, entry.flops, entry.params, quality, metrics=entry.metrics
    )
    return TorchPredictor(model, Path(folder).name, Chooser([one], known.metric, known.rule))


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


def read_picture(path: str | Path) -> np.ndarray:
    """Picture of a file, uint8 (H, W, 3) in the order red, green, blue.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture.
    """
    import cv2

    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    # Through memory: imread knows no names beyond the system's code page on Windows.
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f'{path} is no picture that can be read.')
    return np.ascontiguousarray(picture[..., ::-1])


def describe(predictor: Predictor, stitch: str) -> str:
    """A stitch with its costs and quality, in one line."""
    one = predictor.chooser[stitch]
    text = f'{one.name}: {one.flops / 1e9:.4g} GFLOPs'
    if predictor.chooser.metric is not None and one.quality == one.quality:
        text += f', {predictor.chooser.metric} {one.quality:.4g}'
    return text


def names_of(predictor: Predictor) -> Sequence[str]:
    """Names of all stitches that the demos may run."""
    return [one.name for one in predictor.chooser.candidates]
