"""Files that metrics and hooks write in a test of several stitches."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.runner import TestLoop as StockTestLoop
from PIL import Image

from tests import toy_detection
from tests.builders import shake
from tests.toy_segmentation import backbone_of, toy_config, toy_runner, write_images

CHOSEN = ['S3', 'L6', 'L2-S1-L2']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=1, val=2)


def shaken(runner):
    shake(runner.model)
    backbone_of(runner).mark_fitted()
    return runner


def evaluator(folder, **settings):
    return dict(type='IoUMetric', iou_metrics=['mIoU'], output_dir=str(folder), **settings)


def predictions_of(runner, name):
    """Class of each pixel of each image under a stitch, by mmseg's own inference."""
    found = {}
    with backbone_of(runner).use_stitch(name), torch.no_grad():
        for batch in runner.test_dataloader:
            for sample in runner.model.test_step(batch):
                stem = sample.img_path.split('/')[-1][:-4]
                found[stem] = sample.pred_sem_seg.data[0].numpy()
    return found


@pytest.mark.parametrize('one_pass', [True, False])
def test_each_stitch_has_a_folder_of_its_predictions(data, tmp_path, one_pass):
    runner = shaken(toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=CHOSEN, one_pass=one_pass),
        test_evaluator=evaluator(tmp_path / 'out'),
    ))  # fmt: skip
    runner.test()
    seen = []
    for name in CHOSEN:
        expected = predictions_of(runner, name)
        files = sorted((tmp_path / 'out' / name).iterdir())
        assert [path.stem for path in files] == sorted(expected)
        for path in files:
            stored = np.array(Image.open(path)).astype(int) - 1  # as reduce_zero_label took it
            assert (stored == expected[path.stem]).all()
        seen.append(np.stack(list(expected.values())))
    assert not any((seen[0] == other).all() for other in seen[1:])
    assert {path.name for path in (tmp_path / 'out').iterdir()} == set(CHOSEN)
    assert runner.test_loop.evaluator.metrics[0].output_dir == str(tmp_path / 'out')


def test_one_stitch_alone_writes_where_it_is_told(data, tmp_path):
    runner = shaken(toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches='S3'),
        test_evaluator=evaluator(tmp_path / 'out'),
    ))  # fmt: skip
    runner.test()
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2


def test_metrics_that_only_write_files_give_files_and_no_summary(data, tmp_path):
    """Of pictures without ground truth, as of a test server."""
    pipeline = toy_config(data, tmp_path).test_dataloader.dataset.pipeline
    pipeline = [step for step in pipeline if step.type != 'LoadAnnotations']
    runner = shaken(toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=CHOSEN),
        test_dataloader=dict(dataset=dict(pipeline=pipeline, test_mode=True)),
        test_evaluator=evaluator(tmp_path / 'out', format_only=True),
    ))  # fmt: skip
    assert runner.test() == {}
    for name in CHOSEN:
        assert len(list((tmp_path / 'out' / name).glob('*.png'))) == 2


def test_each_stitch_dumps_its_predictions_beside_the_others(data, tmp_path):
    dump = dict(type='DumpResults', out_file_path=str(tmp_path / 'out' / 'all.pkl'))
    metrics = [dict(type='IoUMetric', iou_metrics=['mIoU']), dump]
    runner = shaken(toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=CHOSEN), test_evaluator=metrics
    ))  # fmt: skip
    runner.test()
    for name in CHOSEN:
        stored = pickle.loads((tmp_path / 'out' / name / 'all.pkl').read_bytes())
        for sample in stored:
            found = predictions_of(runner, name)[sample['img_path'].split('/')[-1][:-4]]
            assert (sample['pred_sem_seg']['data'][0].numpy() == found).all()


def test_detections_of_each_stitch_lie_under_its_name(tmp_path):
    data = toy_detection.write_coco_rooms(tmp_path / 'coco', train=1, val=1)
    runner = shaken(toy_detection.toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=['S2', 'L4']),
        test_evaluator=dict(outfile_prefix=str(tmp_path / 'out' / 'rooms')),
    ))  # fmt: skip
    runner.test()
    boxes = []
    for name in ('S2', 'L4'):
        stored = json.loads((tmp_path / 'out' / name / 'rooms.bbox.json').read_text())
        boxes.append([one['bbox'] for one in stored])
    assert boxes[0] and boxes[0] != boxes[1]
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'S2', 'L4'}


def test_drawn_predictions_bear_the_name_of_their_stitch(data, tmp_path):
    hook = dict(visualization=dict(type='SegVisualizationHook', draw=True, interval=1))
    runner = shaken(toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=CHOSEN), default_hooks=hook,
        visualizer=dict(
            type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')],
            name=f'drawn_{tmp_path.name}',
        ),
    ))  # fmt: skip
    runner.test()
    drawn = {path.name: path.read_bytes() for path in (tmp_path / 'run').rglob('vis_image/*')}
    assert len(drawn) == len(CHOSEN) * 2
    for name in CHOSEN:
        assert sum(file.startswith(f'{name}_test_ADE_') for file in drawn) == 2
    assert 'add_image' not in vars(runner.visualizer)
    stock = StockTestLoop(runner, runner.test_dataloader, runner.cfg.test_evaluator)
    with backbone_of(runner).use_stitch('L6'):
        stock.run()
    for path in (tmp_path / 'run').rglob('vis_image/test_*'):
        assert path.read_bytes() == drawn[f'L6_{path.name}']


def test_pictures_of_detections_lie_in_a_folder_of_their_stitch(tmp_path):
    data = toy_detection.write_coco_rooms(tmp_path / 'coco', train=1, val=1)
    hook = dict(
        visualization=dict(type='DetVisualizationHook', draw=True, test_out_dir='shown')
    )
    runner = shaken(toy_detection.toy_runner(
        data, tmp_path / 'run', test_cfg=dict(stitches=['S2', 'L4']), default_hooks=hook,
        visualizer=dict(type='DetLocalVisualizer', name=f'drawn_{tmp_path.name}'),
    ))  # fmt: skip
    runner.test()
    folders = [path.parent for path in (tmp_path / 'run').rglob('shown/*/*')]
    assert {folder.name for folder in folders} == {'S2', 'L4'} and len(folders) == 2
