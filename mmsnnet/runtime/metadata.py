"""What an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Under this key a file's own metadata holds the JSON text of :class:`ModelMetadata`.
METADATA_KEY = 'mmsnnet'
#: Raised when the meaning of a field changes.
FORMAT = 1


@dataclass(frozen=True)
class StitchEntry:
    """One stitch of an exported file.

    Attributes:
        name: Name of the stitch; its position in the list is the number that selects it.
        family: Labels of its segments.
        flops: Multiply-adds of the whole model for one image of ``image_size``.
        params: Parameters of the whole model that take part.
        metrics: What a sweep measured, by name; empty if none did.
    """

    name: str
    family: str
    flops: int
    params: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMetadata:
    """Description of an exported file.

    Attributes:
        version: Version of mmsnnet that wrote the file.
        task: 'segmentation', 'depth', 'classification' or 'features'.
        image_size: (height, width) in pixels that the file was exported for.
        stitches: Its stitches; more than one in a file whose input ``stitch`` selects.
        outputs: Names of the outputs, in order.
        anchors: (label, number of blocks) of each anchor from cheap to costly; empty in files
            that were exported before it was kept.
        mean: Mean per channel, for pixels from 0 to 255.
        std: Standard deviation likewise.
        channel_order: 'rgb' or 'bgr', of the images that go in.
        dynamic_size: Whether other image sizes than ``image_size`` are exact too.
        preprocessing: Whether images go in as uint8 (B, H, W, C) of any size and labels or depths
            come out, instead of normalised float32 (B, C, H, W).
        precision: 'fp32', 'fp16' or 'int8'.
        classes: Names of the classes.
        palette: Colour (r, g, b) of each.
        metric: Metric to choose stitches by; None if none was measured.
        rule: 'greater' or 'less', which is better.
        checks: Differences from the model in torch that were measured at export.
        source: Where the weights came from, such as a hash of the checkpoint.
    """

    version: str
    task: str
    image_size: tuple[int, int]
    stitches: tuple[StitchEntry, ...]
    outputs: tuple[str, ...]
    anchors: tuple[tuple[str, int], ...] = ()
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: str = 'rgb'
    dynamic_size: bool = False
    preprocessing: bool = False
    precision: str = 'fp32'
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    metric: str | None = None
    rule: str = 'greater'
    checks: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` reads."""
        return json.dumps({'format': FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: object) -> ModelMetadata:
        """Read a JSON text.

        Args:
            text: Result of :meth:`to_json`.
            source: File that it comes from, for messages.

        Raises:
            ValueError: If it is damaged, or of another format.
        """
        try:
            content = json.loads(text)
            if content.pop('format') != FORMAT:
                raise ValueError('another format')
            entries = tuple(StitchEntry(**entry) for entry in content.pop('stitches'))
            settings = {key: _as_tuple(value) for key, value in content.items()}
            found = cls(stitches=entries, **settings)
            if not entries or len({entry.name for entry in entries}) < len(entries):
                raise ValueError('no or repeated stitches')
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f'{source} was written by another version of mmsnnet, or is damaged ({reason}); '
                'export it again.'
            ) from None
        return found


def _as_tuple(value: Any) -> Any:
    """Lists of JSON as the tuples they were, at any depth."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


