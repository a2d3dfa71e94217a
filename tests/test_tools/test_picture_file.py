"""Pictures of unusual files: the right pixels, or one line."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tools._picture_file import read_picture
from tools.web.pictures import Limits, UploadError, decode

RAMP = np.arange(64, dtype=np.uint8)[None].repeat(8, 0) * 4


def encoded(picture, kind='PNG', **settings):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def both(content, tmp_path):
    """The picture as the page takes an upload, and as the demos read a file."""
    path = tmp_path / 'picture'
    path.write_bytes(content)
    upload, file = decode(content, Limits()), read_picture(path)
    assert np.array_equal(upload, file)
    return upload


def test_greys_of_16_bits_keep_their_shades(tmp_path):
    wide = RAMP.astype(np.uint16) * 257
    found = both(encoded(Image.fromarray(wide)), tmp_path)
    assert np.array_equal(found, RAMP[..., None].repeat(3, -1))
    coloured = cv2.imencode('.png', np.stack([wide, wide[:, ::-1], wide], -1))[1].tobytes()
    assert np.array_equal(both(coloured, tmp_path)[..., 1], RAMP[:, ::-1])


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_pixels_are_white_whatever_colour_lies_beneath(tmp_path, mode):
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[:, 4:] = (0, 0, 0, 255)
    picture = Image.fromarray(pixels)
    picture = picture.quantize(4) if mode == 'P' else picture.convert(mode)
    found = both(encoded(picture), tmp_path)
    assert (found[:, :4] == 255).all() and (found[:, 4:] == 0).all()


def test_the_four_inks_become_three_colours(tmp_path):
    grey = np.stack([RAMP] * 3, -1)
    content = encoded(Image.fromarray(grey).convert('CMYK'), 'JPEG', quality=95)
    assert np.abs(both(content, tmp_path).astype(int) - grey).max() <= 4


@pytest.mark.parametrize('kind', ['PNG', 'WEBP'])
def test_the_first_frame_of_an_animation_is_shown(tmp_path, kind):
    frames = [Image.new('RGB', (20, 10), colour) for colour in ('red', 'blue')]
    more = dict(lossless=True) if kind == 'WEBP' else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
    assert np.array_equal(both(content, tmp_path), np.full((10, 20, 3), (255, 0, 0)))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_upright_however_the_camera_was_held(tmp_path, orientation):
    """OpenCV turns them by the same entry on its own."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((40, 30), Image.Resampling.NEAREST)
    exif = picture.getexif()
    exif[0x0112] = orientation
    content = encoded(picture, 'JPEG', exif=exif, quality=95, subsampling=0)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    found = both(content, tmp_path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP'])
def test_a_file_that_ends_in_its_middle_is_refused_in_one_line(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UploadError, match=r'^This picture is damaged and cannot be read\.$'):
        decode(content[: len(content) // 2], Limits())
    path = tmp_path / 'half'
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r'half is damaged and cannot be read \([^\n]+\)\.$'):
        read_picture(path)


@pytest.mark.parametrize('content', [b'', b'hello', b'BM' + bytes(10)])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / 'none'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'none is [^\n]+\.$'):
        read_picture(path)
    with pytest.raises(UploadError):
        decode(content, Limits())


def test_a_header_of_more_pixels_than_any_picture_has_is_refused_by_both(tmp_path):
    content = bytearray(encoded(Image.new('RGB', (4, 4)), 'BMP'))
    content[18:26] = (2**31 - 1).to_bytes(4, 'little') * 2
    path = tmp_path / 'bomb'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='bomb has too many pixels'):
        read_picture(path)
    with pytest.raises(UploadError, match='too many pixels'):
        decode(bytes(content), Limits())


@pytest.mark.parametrize('size', [(1, 1), (1, 5000), (5000, 1)])
def test_the_narrowest_pictures_keep_a_pixel(size):
    found = decode(encoded(Image.new('RGB', size)), Limits())
    assert min(found.shape) >= 1 and max(found.shape) <= 1024
