"""Notices a layer that is given another number of channels than it was built for."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn

#: Layers that take a fixed number of channels: the attribute that says it, and the dimension.
_WIDTHS = (
    (nn.Linear, 'in_features', -1),
    (nn.modules.conv._ConvNd, 'in_channels', 1),
    (nn.modules.batchnorm._BatchNorm, 'num_features', 1),
)


class LayerWidths:
    """Watches the layers of a module inside a ``with`` block.

    A layer with the wrong input raises, also on meta tensors, where torch itself lets some pass.

    Args:
        module: Whose layers.
        path: Its name in messages.

    Attributes:
        mismatch: The first layer that did not fit, in words; empty if all did.
    """

    def __init__(self, module: nn.Module, path: str) -> None:
        self._module = module
        self._path = path
        self._handles: list[Any] = []
        self.mismatch = ''

    def __enter__(self) -> LayerWidths:
        for name, layer in self._module.named_modules():
            for kind, attribute, dim in _WIDTHS:
                if isinstance(layer, kind):
                    hook = self._hook(f'{self._path}.{name}', getattr(layer, attribute), dim)
                    self._handles.append(layer.register_forward_pre_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, width: int, dim: int) -> Any:
        def check(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0] if inputs else None
            if isinstance(x, Tensor) and width and x.ndim > 1 and x.shape[dim] != width:
                self.mismatch = self.mismatch or (
                    f'its layer {name} ({type(layer).__name__}) takes {width} channels and is '
                    f'given {x.shape[dim]}'
                )
                raise ValueError(self.mismatch)

        return check
