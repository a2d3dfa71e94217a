"""Pictures that visitors upload, within limits, and those that they may choose from."""

from __future__ import annotations

import itertools
import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from _picture_file import to_rgb
from PIL import Image, UnidentifiedImageError

#: What can be uploaded; Pillow's rarer readers are not offered to strangers' bytes.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP')
#: Uploads that are held; an older one makes room.
MAX_HELD = 16


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes:
        megabytes: Most of the file, in 10^6 bytes.
        megapixels: Most of the picture, in 10^6 pixels, which its header says before any is read.
        side: Pixels of the longer side beyond which a picture is made smaller.
    """

    megabytes: float = 8.0
    megapixels: float = 24.0
    side: int = 1024


class UploadError(ValueError):
    """An upload that is refused.

    Args:
        status: Status of HTTP.
        reason: One line for the visitor.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def decode(content: bytes, limits: Limits) -> np.ndarray:
    """Picture of a file's bytes, upright, uint8 (H, W, 3) in the order red, green, blue.

    Raises:
        UploadError: If it is too large, or no picture.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of its own limit before ours is looked at.
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(content), formats=FORMATS)
        width, height = picture.size
        if width * height > limits.megapixels * 1e6:
            raise UploadError(
                413,
                f'The picture has {width} x {height} pixels; at most {limits.megapixels:g} '
                'million are taken.',
            )
        picture.draft('RGB', (limits.side, limits.side))  # JPEG is decoded smaller right away
        pixels = to_rgb(picture)
    except UploadError:
        raise
    except Image.DecompressionBombError:
        raise UploadError(
            413, f'The picture has too many pixels; {limits.megapixels:g} million are taken.'
        ) from None
    except UnidentifiedImageError:
        raise UploadError(
            415, f'This file is no picture; {", ".join(FORMATS)} are taken.'
        ) from None
    except Exception:  # readers of damaged files raise whatever they stumble over
        raise UploadError(415, 'This picture is damaged and cannot be read.') from None
    smaller = Image.fromarray(pixels)
    smaller.thumbnail((limits.side, limits.side))
    return np.array(smaller)


class Pictures:
    """Pictures by id: samples, which stay, and the latest uploads.

    Args:
        samples: Files to choose from.
        limits: What they and uploads may be.

    Raises:
        FileNotFoundError: If a sample is missing.
        ValueError: If one is no picture.
    """

    def __init__(self, samples: Iterable[Path] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, np.ndarray] = OrderedDict()
        self._samples: dict[str, np.ndarray] = {}
        for number, path in zip(itertools.count(), samples):
            try:
                self._samples[f'sample-{number}'] = decode(path.read_bytes(), self.limits)
            except UploadError as error:
                raise ValueError(f'Sample {path} cannot be used: {error}') from None

    @property
    def samples(self) -> list[str]:
        """Ids of the samples."""
        return list(self._samples)

    def add(self, content: bytes) -> str:
        """Hold an upload; returns its id.

        Raises:
            UploadError: If it is refused.
        """
        picture = decode(content, self.limits)
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._uploads[name] = picture
            while len(self._uploads) > MAX_HELD:
                self._uploads.popitem(last=False)
        return name

    def __getitem__(self, name: str) -> np.ndarray:
        """Picture by id.

        Raises:
            UploadError: If there is none.
        """
        with self._lock:
            found = self._samples.get(name)
            found = self._uploads.get(name) if found is None else found
        if found is None:
            raise UploadError(404, 'This picture is no longer held; upload it again.')
        return found
