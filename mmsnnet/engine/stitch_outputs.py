"""Keeps apart what metrics and visualizers write of different stitches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.visualization import Visualizer

from mmsnnet.models import StitchedViT

#: Attributes of metrics of mmengine, mmseg and mmdet that name a folder they write to.
_FOLDERS = ('output_dir',)
#: Those that name a file, or the beginning of the names of several.
_FILES = ('outfile_prefix', 'outfile_path', 'out_file_path', 'proposals_file')


def _beside(path: str, stitch: str) -> str:
    """The path in a folder of the stitch beside it: ``out/x.pkl`` becomes ``out/S3-L6/x.pkl``."""
    return str(Path(path).parent / stitch / Path(path).name)


@contextmanager
def written_by_stitch(evaluator: Evaluator, stitch: str) -> Iterator[None]:
    """Let metrics write into a folder of a stitch for the length of a ``with`` block.

    Args:
        evaluator: Evaluator whose metrics may write predictions.
        stitch: Name of the stitch.
    """
    with ExitStack() as stack:
        for metric in getattr(evaluator, 'metrics', ()):
            for attribute, path in list(vars(metric).items()):
                if attribute not in _FOLDERS + _FILES or not isinstance(path, str) or not path:
                    continue
                if attribute in _FOLDERS:
                    own = str(Path(path, stitch))
                else:
                    own = _beside(path, stitch)
                # Some "prefixes" are folders.
                is_folder = attribute in _FOLDERS or Path(path).is_dir()
                (Path(own) if is_folder else Path(own).parent).mkdir(parents=True, exist_ok=True)
                setattr(metric, attribute, own)
                stack.callback(setattr, metric, attribute, path)
        yield


@contextmanager
def drawn_by_stitch(visualizer: Visualizer, backbone: StitchedViT) -> Iterator[None]:
    """Let a visualizer name pictures by the active stitch for the length of a ``with`` block.

    Pictures that go to a file of their own, as by mmdet's ``--show-dir``, get a folder a stitch;
    those that go to the backends of the visualizer, such as TensorBoard, begin with its name.

    Args:
        visualizer: What hooks draw by.
        backbone: Backbone whose active stitch made what is drawn.
    """
    with ExitStack() as stack:
        for method in ('add_image', 'add_datasample', 'visualize_cls'):
            if hasattr(visualizer, method):
                own = method in vars(visualizer)  # a wrapper of somebody else
                former = getattr(visualizer, method)
                setattr(visualizer, method, _named_by_stitch(former, method, backbone))
                if own:
                    stack.callback(setattr, visualizer, method, former)
                else:
                    stack.callback(delattr, visualizer, method)
        yield


def _named_by_stitch(
    call: Callable[..., Any], method: str, backbone: StitchedViT
) -> Callable[..., Any]:
    def named(*args: Any, **kwargs: Any) -> Any:
        stitch = backbone.stitch.name
        if method == 'add_image':
            if 'name' in kwargs:
                kwargs['name'] = f'{stitch}_{kwargs["name"]}'
            else:
                args = (f'{stitch}_{args[0]}', *args[1:])
        elif kwargs.get('out_file'):
            kwargs['out_file'] = _beside(kwargs['out_file'], stitch)
        return call(*args, **kwargs)

    return named
