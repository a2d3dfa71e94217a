"""Finding the configs that the package installs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config

import mmsnnet

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
