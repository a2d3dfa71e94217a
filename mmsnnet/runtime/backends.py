"""Runs an exported file by onnxruntime or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from .metadata import METADATA_KEY, ModelMetadata
from .signal_stack import kept_signal_stack


class Backend(Protocol):
    """A loaded file.

    Attributes:
        metadata: What the file says of itself.
        inputs: Names of its inputs.
        threads: Threads that it computes with; None where that is not known.
    """

    metadata: ModelMetadata
    inputs: tuple[str, ...]
    threads: int | None

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs by name, in the order of the file; several threads may call it."""


class OnnxBackend:
    """An ONNX file in onnxruntime.

    Args:
        path: The file.
        threads: Threads to compute with; None leaves it to onnxruntime.
        providers: Execution providers in order of preference; None takes the CPU.

    Raises:
        ImportError: If onnxruntime is not installed.
        ValueError: If the file is none that mmsnnet exported.
    """

    def __init__(
        self, path: Path, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ImportError('Running an ONNX file needs: pip install onnxruntime') from error
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        providers = ['CPUExecutionProvider'] if providers is None else list(providers)
        unknown = set(providers) - set(onnxruntime.get_available_providers())
        if unknown:
            raise ValueError(
                f'onnxruntime has no {", ".join(sorted(unknown))} here; there are '
                f'{", ".join(onnxruntime.get_available_providers())}.'
            )
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers)
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            reason = str(error).splitlines()[0]
            raise ValueError(f'{path} is no ONNX file that can be run: {reason}') from None
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata = _parse(text, path)
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.threads = threads

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs by name."""
        return self._session.run(None, dict(feed))


class OpenVINOBackend:
    """An OpenVINO model (.xml beside its .bin).

    It computes in float32: by default OpenVINO lowers the precision of some devices silently.

    Args:
        path: The .xml file.
        threads: Threads to compute with; None leaves it to OpenVINO.
        providers: Device, such as ``['CPU']``; None takes the CPU.

    Raises:
        ImportError: If OpenVINO is not installed.
        ValueError: If the file is none that mmsnnet exported.
    """

    def __init__(
        self, path: Path, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise ImportError('Running an OpenVINO file needs: pip install openvino') from error
        core = openvino.Core()
        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads is not None:
            settings['INFERENCE_NUM_THREADS'] = threads
        try:
            model = core.read_model(os.fspath(path))
            device = 'CPU' if providers is None else providers[0]
            with kept_signal_stack():
                self._compiled = core.compile_model(model, device, settings)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f'{path} is no OpenVINO model that can be run: {reason}') from None
        key = ['framework', METADATA_KEY]
        text = model.get_rt_info(key).astype(str) if model.has_rt_info(key) else None
        self.metadata = _parse(text, path)
        self.inputs = tuple(one.any_name for one in self._compiled.inputs)
        self.threads = int(self._compiled.get_property('INFERENCE_NUM_THREADS'))
        self._request, self._lock = self._compiled.create_infer_request(), Lock()

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs by name."""
        with self._lock:  # a request holds the tensors of one inference
            self._request.infer(dict(feed))
            return [np.array(self._request.get_tensor(one).data) for one in self._compiled.outputs]


def _parse(text: str | None, path: Path) -> ModelMetadata:
    if not text:
        raise ValueError(f'{path} has no metadata of mmsnnet; export it by tools/export_stitch.py.')
    return ModelMetadata.from_json(text, path)


def open_file(
    path: str | os.PathLike[str],
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> Backend:
    """Load a file by its suffix.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If what runs it is not installed.
        ValueError: If it is of another kind.
    """
    path = Path(path)
    kinds = {'.onnx': OnnxBackend, '.xml': OpenVINOBackend}
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    if path.suffix not in kinds:
        raise ValueError(f'{path} is of no kind that can be run; there are {", ".join(kinds)}.')
    return kinds[path.suffix](path, threads, providers)
