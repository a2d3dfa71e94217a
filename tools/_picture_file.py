"""Pictures of files as arrays, whatever their depth of colour, transparency or orientation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def to_rgb(picture: Image.Image) -> np.ndarray:
    """Pixels of a picture, upright, uint8 (H, W, 3) in the order red, green, blue.

    Greys of 16 bits become 8, transparent pixels lie over white, and of an animation the first
    frame is taken.

    Args:
        picture: As Pillow opened it.

    Raises:
        Exception: Whatever Pillow stumbles over in a damaged file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of palettes with transparency, which are handled here
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith('I'):  # Pillow would cut off what exceeds 255
            picture = Image.fromarray((np.asarray(picture) // 256).clip(0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            white = Image.new('RGBA', picture.size, 'white')
            picture = Image.alpha_composite(white, picture.convert('RGBA'))
        return np.array(picture.convert('RGB'))


def read_picture(path: str | Path) -> np.ndarray:
    """Picture of a file; see :func:`to_rgb`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, is damaged, or unfolds to far more pixels than a picture
            of that kind has.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no file {path}.')
    try:
        with Image.open(path) as picture:
            return to_rgb(picture)
    except UnidentifiedImageError:
        raise ValueError(f'{path} is no picture that can be read.') from None
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f'{path} has too many pixels; {most} million can be read.') from None
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        if getattr(error, 'errno', None) is not None:  # of the system, such as missing permission
            raise
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'{path} is damaged and cannot be read ({reason[:80]}).') from None
