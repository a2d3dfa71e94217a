"""Maps over pictures: classes in their colours, depths from near to far, and a line of text."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

#: Share of the map in the blend of classes; a depth map replaces the picture.
OPACITY = 0.6
#: Height of the bar of text, in pixels, and the scale of its letters.
BAR, LETTERS = 22, 0.42
#: Pictures narrower than this are enlarged before text is put above them.
NARROW = 240
#: Golden angle in turns: hues of neighbouring classes without a palette differ most.
GOLDEN = 0.381966


def palette_for(palette: np.ndarray, count: int) -> np.ndarray:
    """Colours (count, 3): those given, and further hues where there are too few."""
    hues = (np.arange(count) * GOLDEN % 1 * 179).astype(np.uint8)
    hsv = np.stack([hues, np.full(count, 170, np.uint8), np.full(count, 220, np.uint8)], -1)
    colours = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0] if count else hsv
    known = min(count, len(palette))
    colours[:known] = palette[:known]
    return colours


def paint_classes(picture: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Picture blended with the colours of its classes.

    Args:
        picture: uint8 (H, W, 3), red green blue.
        labels: Class numbers (H, W).
        palette: Colours of the classes; see :func:`palette_for`.
    """
    colours = palette_for(palette, int(labels.max(initial=0)) + 1)[labels]
    return cv2.addWeighted(picture, 1 - OPACITY, colours, OPACITY, 0)


def depth_range(depths: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth of a map, without its 2 % at either end."""
    finite = depths[np.isfinite(depths)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.quantile(finite, [0.02, 0.98])
    return float(low), float(max(high, low + 1e-6))


def paint_depths(depths: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Depths (H, W) as colours from near (bright) to far (dark)."""
    low, high = limits
    share = np.nan_to_num((depths - low) / (high - low), nan=1.0, posinf=1.0, neginf=0.0)
    grey = (255 * (1 - share.clip(0, 1))).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1])


def paint(
    picture: np.ndarray,
    found: np.ndarray,
    palette: np.ndarray,
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Picture with a map of classes (integers) or of depths over it.

    Args:
        picture: uint8 (H, W, 3), red green blue.
        found: Map (H, W).
        palette: Colours of the classes.
        limits: Depths that are shown brightest and darkest; None takes those of the map.
    """
    if found.dtype.kind in 'iu':
        return paint_classes(picture, found, palette)
    return paint_depths(found, limits or depth_range(found))


def with_text(picture: np.ndarray, parts: Sequence[str]) -> np.ndarray:
    """Picture with a dark bar of text above it, enlarged by a whole factor if it is narrow.

    Args:
        picture: uint8 (H, W, 3).
        parts: What to say; parts that do not fit beside the former ones begin a line.
    """
    factor = -(-NARROW // picture.shape[1])
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    width, lines = picture.shape[1], []
    for part in parts:
        joined = f'{lines[-1]}  {part}' if lines else part
        fits = cv2.getTextSize(joined, cv2.FONT_HERSHEY_SIMPLEX, LETTERS, 1)[0][0] <= width - 8
        lines = [*lines[:-1], joined] if lines and fits else [*lines, part]
    bar = np.full((BAR * len(lines), width, 3), 24, np.uint8)
    for number, line in enumerate(lines):
        place = (4, BAR * number + BAR - 7)
        long = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, LETTERS, 1)[0][0]
        scale = LETTERS * min(1.0, (width - 8) / long)
        cv2.putText(
            bar, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA
        )
    return np.concatenate([bar, picture])
