"""One pass for all stitches against one pass each, on real segmentors, detectors and depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from rooms import RoomsSpec, write_rooms

import mmsnnet
from mmsnnet.engine.one_pass import condense, reason_against
from mmsnnet.engine.shared_preprocessing import SharedPreprocessing
from mmsnnet.stitching.route_tree import RouteTree
from tests import toy_detection
from tests.builders import shake
from tests.toy_segmentation import Probe, backbone_of, toy_runner, write_images

CHOSEN = ['S3', 'L6', 'S1-L4', 'S2-L2', 'L2-S1-L2', 'S1-L2-S1']
SLIDE = dict(mode='slide', crop_size=(48, 48), stride=(32, 32))
FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
SCALES = [dict(type='Resize', scale_factor=factor) for factor in (0.5, 0.75)]
AUGMENTED = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            SCALES,
            FLIPS,
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), train=1, val=3)


def segmentation(data, work_dir, batch_size=1, **settings):
    loop = dict(stitches=CHOSEN)
    return toy_runner(
        data, work_dir, test_cfg=loop, test_dataloader=dict(batch_size=batch_size), **settings
    )


def whole(data, work_dir):
    return segmentation(data, work_dir, batch_size=2)


def slide(data, work_dir):
    return segmentation(data, work_dir, model=dict(test_cfg=SLIDE))


def augmented(data, work_dir):
    """Flips and two scales, in windows."""
    runner = slide(data, work_dir)
    config = runner.cfg
    config.model = dict(type='SegTTAModel', module=config.model)
    config.test_dataloader.dataset.pipeline = AUGMENTED
    return Runner.from_cfg(config)


def halves(data, work_dir):
    """Batches of another size at the end, and a segmentor that pads its input."""
    pad = dict(data_preprocessor=dict(test_cfg=dict(size_divisor=40)))
    return segmentation(data, work_dir, batch_size=2, model=pad)


def detection(_, work_dir):
    data = toy_detection.write_coco_rooms(work_dir / 'coco')
    return toy_detection.toy_runner(data, work_dir, test_cfg=dict(stitches='all'))


def depth(_, work_dir):
    """Whole pictures and their mirror images, in a last batch of another size too."""
    write_rooms(work_dir / 'nyu', RoomsSpec(1, 3, (64, 64), layouts=('nyu',)), workers=1)
    config = Config.fromfile(mmsnnet.config_path('dpt_snnetv2_rooms.py'))
    for anchor in config.model.backbone.anchors:
        anchor.checkpoint = None
    size = (64, 64)
    config.merge_from_dict({
        'model.backbone.img_size': size,
        'model.data_preprocessor.size': size,
        'model.test_cfg.crop_size': size,
        'model.test_cfg.stride': size,
        'test_dataloader.batch_size': 2,
        'test_dataloader.dataset.data_root': str(work_dir / 'nyu'),
        'test_cfg.stitches': 'spread:6',
        'log_level': 'WARNING',
        'work_dir': str(work_dir),
        'experiment_name': f'depth_{work_dir.name}',
    })  # fmt: skip
    return Runner.from_cfg(config)


def tensors_of(outputs):
    """All tensors of predictions by their place."""
    found = {}
    for number, sample in enumerate(outputs):
        for key, field in sample.all_items():
            if isinstance(field, BaseDataElement):
                items = {f'{key}.{name}': value for name, value in field.items()}
            else:
                items = {key: field}
            for name, value in items.items():
                if isinstance(value, np.ndarray):
                    value = torch.from_numpy(value)
                if isinstance(value, torch.Tensor):
                    found[number, name] = value.clone()
    return found


def run(runner, one_pass):
    """Metrics and all predictions of a test, and the blocks that it ran."""
    loop, backbone = runner.test_loop, backbone_of(runner)
    loop.one_pass, predictions, blocks = one_pass, {}, []

    def note(runner, batch_idx, outputs, **_):
        predictions[batch_idx, backbone.stitch.name] = tensors_of(outputs)

    probe = Probe()
    probe.after_test_iter = note
    handles = [
        block.register_forward_hook(lambda *_: blocks.append(1))
        for anchor in backbone.anchors.values()
        for block in anchor.vit.blocks
    ]
    runner.register_hook(probe)
    try:
        return runner.test(), predictions, len(blocks)
    finally:
        runner.hooks.remove(probe)
        for handle in handles:
            handle.remove()


MODELS = [whole, halves, slide, augmented, depth, detection]


@pytest.fixture(scope='module', params=MODELS, ids=lambda build: build.__name__)
def both(request, data, tmp_path_factory):
    """A runner with what one pass and single passes gave, on random weights."""
    runner = request.param(data, tmp_path_factory.mktemp('run') / request.param.__name__)
    shake(runner.model)
    backbone_of(runner).mark_fitted()
    return runner, run(runner, True), run(runner, False)


def test_metrics_are_equal_to_the_last_digit(both):
    _, (together, *_), (apart, *_) = both
    assert together.keys() == apart.keys() and together
    for key, value in apart.items():
        assert together[key] == value or (np.isnan(together[key]) and np.isnan(value)), key


def test_predictions_are_equal_bit_for_bit(both):
    runner, (_, together, _), (_, apart, _) = both
    assert together.keys() == apart.keys()
    names = {stitch.name for stitch in runner.test_loop.scoring.stitches}
    assert {name for _, name in apart} == names
    for place, expected in apart.items():
        assert expected and together[place].keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(together[place][key], value), (place, key)


def test_stitches_predict_different_things(both):
    _, (_, together, _), _ = both
    first = [parts for (batch, _), parts in together.items() if batch == 0]
    keys = first[0].keys()
    for one, other in zip(first, first[1:]):
        assert other.keys() != keys or any(
            one[key].shape != other[key].shape or not torch.equal(one[key], other[key])
            for key in keys
        )


def test_common_beginnings_run_once_for_each_forward_of_the_backbone(both):
    runner, (*_, together), (*_, apart) = both
    space = backbone_of(runner).space
    tree = RouteTree({s.name: space.program(s) for s in runner.test_loop.scoring.stitches})
    assert together * tree.num_blocks_apart == apart * tree.num_blocks
    assert together < apart


def test_nothing_of_it_is_left(both):
    runner, *_ = both
    assert backbone_of(runner).executor is None
    for module in runner.model.modules():
        assert 'forward' not in vars(module)
    for metric in runner.test_loop.evaluator.metrics:
        assert metric.results == [] and '_calc_all_metrics' not in vars(metric)


# -- parts --------------------------------------------------------------------------------------


def test_a_batch_is_preprocessed_once_for_all_stitches(data, tmp_path):
    runner = slide(data, tmp_path)
    backbone_of(runner).mark_fitted()
    calls, preprocessor = [], runner.model.data_preprocessor
    cast = type(preprocessor).forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(preprocessor), 'forward', lambda *args: (calls.append(1), cast(*args))[1]
        )
        runner.test()
    assert len(calls) == len(runner.test_loop.dataloader)


@torch.no_grad()
def test_data_samples_come_anew_from_shared_preprocessing(data, tmp_path):
    runner = whole(data, tmp_path)
    batch = next(iter(runner.test_dataloader))
    preprocess = runner.model.data_preprocessor
    expected = preprocess(batch, False)
    with SharedPreprocessing(runner.model).activate():
        first = preprocess(batch, False)
        first['data_samples'][0].set_data(dict(pred_sem_seg=first['data_samples'][1].gt_sem_seg))
        first['data_samples'][0].set_metainfo(dict(img_shape=(1, 1)))
        second = preprocess(batch, False)
        assert second['inputs'] is first['inputs']
        second['inputs'].zero_()  # as a careless model may
        third = preprocess(batch, False)
    for found in (second['data_samples'], third['data_samples']):
        assert found[0].keys() == expected['data_samples'][0].keys()
        assert found[0].metainfo == expected['data_samples'][0].metainfo
    assert torch.equal(third['inputs'], expected['inputs'])
    assert preprocess(batch, False)['inputs'] is not third['inputs']


def test_depths_of_an_image_are_not_kept(tmp_path):
    runner = depth(None, tmp_path)
    (metric,) = runner.test_loop.evaluator.metrics
    truth, found = torch.rand(2, 500) + 0.5
    expected = metric.compute_metrics([(truth, found), (found, truth)])
    kept = condense(metric, [(truth, found), (found, truth)])
    assert not any(isinstance(part, torch.Tensor) for pair in kept for part in pair)
    assert {key: sum(pair[0][key] for pair in kept) / 2 for key in expected} == expected


@pytest.mark.parametrize('max_memory', [0, 40_000, None])
def test_kept_features_stay_within_their_bound(data, tmp_path, max_memory):
    runner = slide(data, tmp_path)
    backbone_of(runner).mark_fitted()
    batch = next(iter(runner.test_dataloader))
    runner.model.eval()
    runner.call_hook('before_test_epoch')
    with runner.test_loop.together(runner.test_loop.scoring.stitches, max_memory) as one_pass:
        one_pass.run_batch(0, batch)
    if max_memory is None:
        assert one_pass.peak_bytes > 40_000
    else:
        assert one_pass.peak_bytes <= max_memory


def test_metrics_that_keep_results_in_files_are_told_by_name():
    class CityscapesMetric:
        pass

    class Own(CityscapesMetric):
        pass

    assert reason_against(Evaluator([])) is None
    evaluator = Evaluator([])
    evaluator.metrics.append(Own())
    assert 'Own keeps results outside' in reason_against(evaluator)
    assert 'object does not list its metrics' in reason_against(object())
