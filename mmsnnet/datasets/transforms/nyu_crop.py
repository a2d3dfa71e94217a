"""The crop of NYUv2 pictures that training reads."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform

#: Rows and columns of a picture of 480 x 640, half-open.
ROWS, COLUMNS = (45, 472), (43, 608)


class NYUCrop(BaseTransform):
    """Cuts the white frame off picture and depth of NYUv2: rows 45..472, columns 43..608.

    The published recipe trains on this crop (``NYUCrop`` of Monocular-Depth-Estimation-Toolbox)
    and tests on whole pictures. Required and modified keys: ``img`` and those in ``seg_fields``,
    such as ``gt_depth_map``; ``img_shape`` follows.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cut picture (H, W, 3) and maps (H, W).

        Raises:
            ValueError: If the picture is smaller than the crop.
        """
        height, width = results['img'].shape[:2]
        if height < ROWS[1] or width < COLUMNS[1]:
            raise ValueError(
                f'NYUCrop cuts rows {ROWS} and columns {COLUMNS} of pictures of 480 x 640, and '
                f'{results.get("img_path", "the picture")} has {height} x {width}: leave NYUCrop '
                'out of the pipeline for other data.'
            )
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = results[key][slice(*ROWS), slice(*COLUMNS)]
        results['img_shape'] = results['img'].shape[:2]
        return results
