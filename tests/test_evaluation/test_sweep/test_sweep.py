"""The sweep as the command drives it; tests/test_tools has the command itself."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmsnnet.evaluation.sweep.progress import Progress
from mmsnnet.evaluation.sweep.sweep import StitchSweep
from mmsnnet.evaluation.sweep.sweep_config import prepare_config
from mmsnnet.evaluation.sweep.sweep_options import SweepOptions
from mmsnnet.results.records import read_records
from tests.toy_segmentation import (
    SHAPE,
    Probe,
    backbone_of,
    logged,
    segmentor,
    toy_config,
    toy_runner,
    weights,
    write_images,
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    toy_runner(data, folder / 'run', train_cfg=dict(max_iters=3)).train()
    return str(folder / 'run' / 'iter_3.pth')


@pytest.fixture
def sweep(data, checkpoint, tmp_path):
    config = prepare_config(toy_config(data, tmp_path / 'run'), checkpoint, str(tmp_path / 'log'))
    return StitchSweep(Runner.from_cfg(config))


def prepared(checkpoint, **settings):
    config = Config(dict(test_dataloader=dict(), test_evaluator=dict()) | settings)
    return prepare_config(config, checkpoint, 'logs')


def test_the_config_tests_all_stitches_with_the_checkpoint(checkpoint):
    config = prepared(checkpoint, test_cfg=dict(type='TestLoop'), resume=True, load_from='other')
    assert config.test_cfg.to_dict() == dict(type='StitchTestLoop', stitches='all', fp16=False)
    assert config.load_from == checkpoint
    assert config.resume is False
    assert config.work_dir == 'logs'


def test_what_a_config_says_of_its_metric_is_kept(checkpoint):
    kept = dict(metric='rmse', rule='less', metric_range=(10.0, 0.0))
    config = prepared(
        checkpoint, test_cfg=dict(type='StitchTestLoop', fp16=True, stitches='anchors', **kept)
    )
    expected = dict(type='StitchTestLoop', stitches='all', fp16=True, **kept)
    assert config.test_cfg.to_dict() == expected


def test_the_metric_of_validation_serves_where_the_test_names_none(checkpoint):
    loop = dict(type='StitchValLoop', metric='mIoU', stitches='spread:3')
    config = prepared(checkpoint, val_cfg=loop, test_cfg=dict(type='TestLoop'))
    assert config.test_cfg.metric == 'mIoU'
    config = prepared(checkpoint, val_cfg=loop, test_cfg=dict(metric='mAcc'))
    assert config.test_cfg.metric == 'mAcc'


@pytest.mark.parametrize('missing', ['test_dataloader', 'test_evaluator'])
def test_a_config_without_a_test_is_refused(checkpoint, missing):
    with pytest.raises(ValueError, match='no test_dataloader and test_evaluator'):
        prepared(checkpoint, **{missing: None})


def test_a_missing_checkpoint_is_refused():
    with pytest.raises(FileNotFoundError, match=r'There is no checkpoint nowhere\.pth'):
        prepared('nowhere.pth')


@pytest.mark.parametrize('shape', [SHAPE, SHAPE[:1]], ids=['two anchors', 'one anchor'])
def test_a_checkpoint_without_the_backbone_leaves_it_random_and_is_refused(data, tmp_path, shape):
    torch.save(dict(state_dict=dict(other=torch.ones(1))), tmp_path / 'other.pth')
    config = toy_config(data, tmp_path / 'run', model=dict(_delete_=True, **segmentor(shape)))
    config = prepare_config(config, str(tmp_path / 'other.pth'), str(tmp_path / 'log'))
    with pytest.raises(ValueError, match='holds no weights of the stitched backbone'):
        StitchSweep(Runner.from_cfg(config))


def told_by(sweep, names, **options):
    """What a sweep tells while it scores stitches."""
    told = []
    progress = Progress(
        told.append,
        lambda: told.append('batch'),
        lambda stitch, metrics: told.append((stitch.name, metrics['mIoU'])),
    )
    sweep.run([sweep.backbone.space[name] for name in names], SweepOptions(**options), progress)
    return told


def test_progress_is_told_by_batch_and_by_stitch(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    told = told_by(sweep, ('S3', 'S1-L4'))
    rows = {row['name']: row['metrics']['mIoU'] for row in read_records(tmp_path / 'out')}
    assert told == [8, *['batch'] * 8, ('S3', rows['S3']), ('S1-L4', rows['S1-L4'])]


def test_one_by_one_each_stitch_is_final_after_its_pass(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    told = told_by(sweep, ('S3', 'S1-L4'), one_by_one=True)
    rows = {row['name']: row['metrics']['mIoU'] for row in read_records(tmp_path / 'out')}
    batches = ['batch'] * 4
    assert told == [8, *batches, ('S3', rows['S3']), *batches, ('S1-L4', rows['S1-L4'])]


def test_one_pass_writes_what_single_passes_write(sweep, tmp_path):
    stitches, files = list(sweep.backbone.space), []
    for one_by_one in (False, True):
        out = tmp_path / f'one_by_one_{one_by_one}'
        sweep.open(str(out))
        sweep.run(stitches, SweepOptions(one_by_one=one_by_one, shard_size=3))
        sweep.close()
        more = set() if one_by_one else {'image_statistics'}
        assert {path.name for path in out.iterdir()} == {'run.json', 'stitches.jsonl'} | more
        files.append((out / 'stitches.jsonl').read_bytes())
    assert files[0] == files[1]
    assert len({row['metrics']['mIoU'] for row in read_records(out)}) > 1


def test_what_cannot_be_done_in_one_pass_is_done_one_by_one_with_the_reason(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    sweep.loop.evaluator.metrics[0].__class__ = type(
        'CityscapesMetric', (type(sweep.loop.evaluator.metrics[0]),), {}
    )
    with logged(sweep.runner) as lines:
        told = told_by(sweep, ('S3', 'L6'))
    assert [type(one) for one in told] == [int] + ([str] * 4 + [tuple]) * 2
    assert any('one after the other: CityscapesMetric keeps' in line for line in lines)
    with pytest.raises(ValueError, match='cannot be done in shares: CityscapesMetric'):
        told_by(sweep, ('S1-L4',), share=(0, 2))


def test_a_shuffled_order_is_scored_one_by_one_with_the_reason(sweep, tmp_path):
    sweep.loop.dataloader.sampler.shuffle = True
    sweep.open(str(tmp_path / 'out'))
    with logged(sweep.runner) as lines:
        sweep.run(sweep.backbone.space.anchor_stitches)
    assert any('an order of its own' in line and 'shuffle=False' in line for line in lines)
    assert len(read_records(tmp_path / 'out')) == 2


def test_a_record_is_on_the_disk_before_the_next_is_told(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    counts = []
    progress = Progress(on_stitch=lambda *_: counts.append(len(read_records(tmp_path / 'out'))))
    sweep.run(list(sweep.backbone.space)[:3], progress=progress)
    assert counts == [1, 2, 3]


def test_what_has_a_record_is_not_pending(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    space = sweep.backbone.space
    sweep.run(space.anchor_stitches)
    assert sweep.pending(list(space)) == list(space)[2:]
    assert sweep.pending(list(space.anchor_stitches)) == []


def test_hooks_of_a_test_fire_once_and_nothing_of_the_sweep_is_left(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    calls = Counter()
    points = ('before_test', 'before_test_epoch', 'after_test_epoch', 'after_test')
    probe = Probe(**{p: lambda _, p=p: calls.update([p]) for p in points})
    sweep.runner.register_hook(probe)
    hooks = list(sweep.runner.hooks)
    sweep.backbone.set_stitch('L4-S1')
    sweep.run(list(sweep.backbone.space)[:2])
    assert calls == dict.fromkeys(points, 1)
    assert sweep.runner.hooks == hooks
    assert sweep.backbone.stitch.name == 'L4-S1'


def test_the_checkpoint_is_loaded_once_and_whole(sweep, checkpoint):
    state = torch.load(checkpoint)['state_dict']
    found = weights(sweep.runner)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert backbone_of(sweep.runner) is sweep.backbone


def test_opening_leaves_results_of_another_run_alone(sweep, tmp_path):
    sweep.open(str(tmp_path / 'out'))
    sweep.run(sweep.backbone.space.anchor_stitches)
    sweep.runner.cfg.model.test_cfg.mode = 'slide'
    with pytest.raises(ValueError, match=r'another run \(config: .*--overwrite'):
        sweep.open(str(tmp_path / 'out'))
    assert len(read_records(tmp_path / 'out')) == 2
    sweep.open(str(tmp_path / 'out'), overwrite=True)
    assert len(sweep.results) == 0


def test_what_lies_in_a_folder_that_names_no_run_is_not_taken_for_this_one(sweep, tmp_path):
    left = [tmp_path / 'out' / 'shards' / 'a.shard', tmp_path / 'out' / 'head_statistics.pth']

    def leave():
        left[0].parent.mkdir(parents=True, exist_ok=True)
        for path in left:
            path.write_bytes(b'of whatever run')

    leave()
    sweep.open(str(tmp_path / 'out'))
    assert not any(path.exists() for path in left)
    leave()
    sweep.open(str(tmp_path / 'out'))  # now they are of this run
    assert all(path.exists() for path in left)
