"""Finding the configs that the package installs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config

import mmsnnet
from mmsnnet.apis.model_config import load_model_config
from mmsnnet.recipes import find_config

RECIPES = ('upernet_snnetv2_ade20k.py', 'upernet_snnetv2_rooms.py')


@pytest.mark.parametrize('name', RECIPES)
def test_the_path_is_absolute_and_exists(name):
    path = Path(mmsnnet.config_path(name))
    assert path.is_absolute() and path.is_file() and path.name == name


@pytest.mark.parametrize('name', RECIPES)
def test_a_config_of_ones_own_can_inherit_from_any_folder(tmp_path, monkeypatch, name):
    own = tmp_path / 'own.py'
    own.write_text(
        f"_base_ = __import__('mmsnnet').config_path('{name}')\n"
        'model = dict(backbone=dict(lora_rank=3))\n',
        encoding='utf-8',
    )
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(own)
    assert config.model.backbone.type == 'StitchedViT' and config.model.backbone.lora_rank == 3


def test_a_file_in_a_folder_of_the_configs_is_found():
    folder = Path(mmsnnet.config_path(RECIPES[0])).parent
    file = next(folder.glob('_base_/**/*.py'))
    assert mmsnnet.config_path(file.relative_to(folder).as_posix()) == str(file)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"no config 'nope\.py'; .*upernet_snnetv2_ade20k"):
        mmsnnet.config_path('nope.py')


def test_the_ending_may_be_left_out():
    assert mmsnnet.config_path('upernet_snnetv2_rooms') == mmsnnet.config_path(RECIPES[1])


@pytest.mark.parametrize('name', ['../setup.py', '../mmsnnet/version', '/etc/hostname'])
def test_a_name_that_leaves_the_folder_of_configs_is_refused(name):
    with pytest.raises(FileNotFoundError, match='no config'):
        mmsnnet.config_path(name)


@pytest.mark.parametrize('name', ['upernet_snnetv2_room', 'upernet_snnet2_rooms.py'])
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(name):
    with pytest.raises(FileNotFoundError, match=r'do you mean .*upernet_snnetv2_rooms\.py'):
        mmsnnet.config_path(name)


def test_a_recipe_is_found_by_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config('upernet_snnetv2_rooms') == mmsnnet.config_path(RECIPES[1])


def test_a_file_goes_before_a_recipe_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / RECIPES[1]).touch()
    assert find_config(RECIPES[1]) == RECIPES[1]


def test_what_is_neither_file_nor_recipe_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='neither a file nor a recipe'):
        find_config(tmp_path / RECIPES[1])


def test_a_model_config_is_loaded_by_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_model_config('upernet_snnetv2_rooms').model.backbone.type == 'StitchedViT'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model.backbone.img_size.x': 3}, 'overrides model.backbone.img_size.x do not fit'),
        ({'model.backbone.anchors.7.checkpoint': 'x'}, 'Index 7 exceeds'),
        ({'model': 5}, 'model in config .* must be a dict, got 5'),
    ],
)
def test_an_override_that_does_not_fit_the_config_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_model_config('upernet_snnetv2_rooms', options)
