"""A stitched classifier from its training to a budget, by mmpretrain's own parts."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner

from mmsnnet.apis import init_model
from mmsnnet.evaluation.cost.model_cost import model_costs
from tests.builders import tiny_anchor
from tests.classifiers import NUM_CLASSES, SHAPE, classifier, run_config, write_pictures
from tests.test_models.test_heads.test_stitched_cls_head import timm_vit
from tools.list_stitches import main as list_stitches

pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A training of two iterations from files of timm's classifiers, and what came of it."""
    folder = tmp_path_factory.mktemp('classification')
    anchors = []
    for depth, width in SHAPE:
        file = folder / f'{width}.pth'
        torch.save(timm_vit('vit_tiny_patch16_224', depth, width).state_dict(), file)
        anchors.append(dict(tiny_anchor(depth, width), checkpoint=str(file)))
    config = run_config(write_pictures(folder), folder / 'work', classifier(anchors=anchors))
    config.dump(folder / 'config.py')
    runner = Runner.from_cfg(config)
    runner.train()
    checkpoint = folder / 'work' / 'iter_2.pth'
    return SimpleNamespace(config=config, runner=runner, checkpoint=checkpoint, folder=folder)


def started(trained, tmp_path, **settings):
    """Runner of the same config behind its start: hooks ran, no iteration did."""
    config = copy.deepcopy(trained.config)
    config.update(work_dir=str(tmp_path), **settings)
    config.optim_wrapper.optimizer.lr = 0.0
    config.optim_wrapper.optimizer.weight_decay = 0.0
    config.train_cfg.update(max_iters=1, val_interval=2)
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.head.classifiers['L'].weight


def test_training_starts_from_the_classifiers_of_the_anchors(trained, tmp_path):
    file = torch.load(trained.folder / '48.pth', weights_only=True)
    assert torch.equal(started(trained, tmp_path), file['head.weight'])


def of_seven_classes(trained, tmp_path, classifiers):
    """The same start with a head for more classes than the anchors' files have."""
    config = copy.deepcopy(trained.config)
    config.model.head.num_classes = config.model.data_preprocessor.num_classes = 7
    hooks = [dict(type='StitchInitHook', num_images=4, classifiers=classifiers)]
    return started(
        trained, tmp_path, model=config.model, custom_hooks=hooks, log_level='INFO',
        val_cfg=None, val_dataloader=None, val_evaluator=None,
    )  # fmt: skip


def test_training_on_other_classes_starts_at_random_and_warns_of_each_classifier(
    trained, tmp_path
):
    assert of_seven_classes(trained, tmp_path, 'auto').shape == (7, 48)
    (log,) = tmp_path.glob('*/*.log')
    warnings = [line for line in log.read_text().splitlines() if 'WARNING' in line]
    for label, width in (('S', 32), ('L', 48)):
        told = f'Classifier of anchor {label} starts at random: {trained.folder / str(width)}.pth'
        (line,) = [one for one in warnings if told in one]
        assert line.endswith('has 5 classes and head.num_classes=7.')


def test_classifiers_of_other_classes_are_refused_where_pretrained_ones_were_asked_for(
    trained, tmp_path
):
    with pytest.raises(ValueError, match=r'has 5 classes and head\.num_classes=7') as raised:
        of_seven_classes(trained, tmp_path, 'pretrained')
    assert "put classifiers='auto'" in str(raised.value) and '\n' not in str(raised.value)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    ('head', 'preprocessor', 'problem'),
    [
        (3, 3, r'data set has 5 classes, the model head\.num_classes=3: put 5 into head and data'),
        (7, 5, r'data_preprocessor\.num_classes=5 does not fit head\.num_classes=7: put 7'),
    ],
)
def test_a_head_of_other_classes_than_the_data_is_refused_before_the_first_iteration(
    trained, tmp_path, head, preprocessor, problem
):
    model = copy.deepcopy(trained.config.model)
    model.head.num_classes, model.data_preprocessor.num_classes = head, preprocessor
    with pytest.raises(ValueError, match=problem) as raised:
        started(trained, tmp_path, model=model)
    assert '\n' not in str(raised.value) and not list(tmp_path.glob('*.pth'))


def test_a_loaded_checkpoint_keeps_its_classifiers(trained, tmp_path):
    content = torch.load(trained.checkpoint, weights_only=True)
    content['state_dict']['head.classifiers.L.weight'] += 1
    torch.save(content, tmp_path / 'other.pth')
    found = started(trained, tmp_path, load_from=str(tmp_path / 'other.pth'))
    assert torch.equal(found, content['state_dict']['head.classifiers.L.weight'])


def test_validation_scores_the_anchors(trained):
    scores = trained.runner.message_hub.log_scalars
    for name in ('S3', 'L6'):
        assert 0 <= scores[f'val/{name}/accuracy/top1'].current() <= 100


def test_one_pass_scores_as_each_stitch_by_itself(trained):
    together = trained.runner.test()
    backbone = trained.runner.model.backbone
    config = copy.deepcopy(trained.config)
    config.test_cfg = dict(type='TestLoop')
    config.custom_hooks = []
    config.load_from = str(trained.checkpoint)
    alone = Runner.from_cfg(config)
    for stitch in backbone.space:
        alone.model.backbone.set_stitch(stitch)
        score = alone.test()['accuracy/top1']
        assert together[f'{stitch.name}/accuracy/top1'] == score


def test_a_budget_counts_the_classifier_of_the_last_anchor(trained):
    model = init_model(trained.folder / 'config.py', trained.checkpoint)
    costs, alone = model_costs(model, 64), model.backbone.costs
    for stitch in model.backbone.space:
        width = dict(S=32, L=48)[stitch.name.split('-')[-1][0]]
        assert costs[stitch].flops - alone[stitch].flops == NUM_CLASSES * width
        assert costs[stitch].params - alone[stitch].params == NUM_CLASSES * (width + 1)
    limit = costs['S1-L4'].flops / 1e9
    chosen = model.set_budget(gflops=limit).name
    fitting = {name: one.flops for name, one in costs.items() if one.flops <= limit * 1e9}
    assert chosen == max(fitting, key=fitting.get)


def test_the_list_of_stitches_tells_what_classifiers_cost(trained, capsys):
    assert list_stitches([str(trained.folder / 'config.py')]) == 0
    assert '1.6e-07 to 2.4e-07 GFLOPs' in capsys.readouterr().out.splitlines()[-1]
