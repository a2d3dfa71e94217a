"""A stitched backbone in configs that MMSegmentation and MMDetection ship."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TOOLS)
    import _drop_in
    import survey_drop_in

QUICK = (
    'mmseg/dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512',
    'mmseg/segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512',
    'mmdet/retinanet/retinanet_r50_fpn_1x_coco',
)


def configs():
    """Configs with their package, the quick ones unmarked."""
    for package in survey_drop_in.HOSTS:
        try:
            found = survey_drop_in.find_configs(package)
        except FileNotFoundError as error:
            yield pytest.param(None, package, marks=pytest.mark.skip(reason=str(error)))
            continue
        for path in found:
            name = f'{package}/{path.parent.name}/{path.stem}'
            yield pytest.param(
                path, package, id=name, marks=() if name in QUICK else pytest.mark.slow
            )


@pytest.mark.parametrize(('path', 'package'), list(configs()))
def test_a_config_trains_a_step_and_tests_stitches_after_what_messages_say(path, package):
    outcome = survey_drop_in.survey(path, package)
    assert outcome.error == ''
    assert len(outcome.stitches) == _drop_in.STITCHES
    assert outcome.changes


def test_every_quick_config_is_there():
    ids = {param.id for param in configs()}
    assert ids.issuperset(QUICK)


def test_a_message_without_advice_is_an_error():
    with pytest.raises(ValueError, match='something else'):
        _drop_in.follow(Config(dict(model=dict())), 'something else')


@pytest.mark.parametrize(
    ('message', 'place', 'value'),
    [
        ('neck.in_channels=[1] of X does not fit Y: put [2, 2].', 'neck.in_channels', [2, 2]),
        ("p='f': set model.pretrained=None and name each.", 'pretrained', None),
        ('it has no tokens: put backbone.flag=True.', 'backbone.flag', True),
        ("A has no neck: put neck=dict(_delete_=True, type='P').", 'neck', dict(type='P')),
    ],
)
def test_what_a_message_says_is_written(message, place, value):
    cfg = Config(dict(model=dict(pretrained='f', neck=dict(in_channels=[1]), backbone=dict())))
    _drop_in.follow(cfg, message)
    node = cfg.model
    for key in place.split('.'):
        node = node[key]
    assert node == value


def test_a_message_may_name_two_places():
    cfg = Config(dict(model=dict(auxiliary_head=[dict(), dict()])))
    _drop_in.follow(
        cfg, 'auxiliary_head[1].in_channels=8 of X: put 4 and auxiliary_head[1].channels=4.'
    )
    assert cfg.model.auxiliary_head[1] == dict(in_channels=4, channels=4)


def test_the_table_names_config_changes_and_stitches():
    outcome = survey_drop_in.Outcome('mmseg::vit/a.py', 'MAE', ['model.x=1'], ['S6', 'L12'])
    assert survey_drop_in.table([outcome]).splitlines()[-1] == (
        '| mmseg::vit/a.py | MAE | `model.x=1` | trained a step, tested S6, L12 |'
    )


def test_the_command_fails_if_a_config_does_not_work(monkeypatch, capsys):
    broken = survey_drop_in.Outcome('mmseg::vit/a.py', 'MAE', error='ValueError: no')
    monkeypatch.setattr(survey_drop_in, 'survey', lambda *_: broken)
    assert survey_drop_in.main(['--only', 'dpt_vit-b16']) == 1
    assert '| ValueError: no |' in capsys.readouterr().out
