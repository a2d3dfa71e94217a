"""Stitches of classifiers taken out, and their ONNX files, against the stitched classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmsnnet.apis import init_model
from mmsnnet.deploy import extract, load, save_extracted
from mmsnnet.deploy.description import as_exported
from mmsnnet.deploy.export import export_onnx
from mmsnnet.deploy.inference import SwitchedInference
from mmsnnet.deploy.switched import SwitchedBackbone
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.models import FixedStitchedViT
from mmsnnet.runtime.session import StitchSession
from tests.builders import random_images
from tests.classifiers import KINDS, NUM_CLASSES, classifier, save_classifier, write_pictures
from tests.test_deploy.models import described

mmpretrain = pytest.importorskip('mmpretrain', reason='classifiers are those of mmpretrain')

#: Classifiers by their class token, and by the normed mean of their patches.
WAYS = {
    'token': classifier(),
    'mean': classifier('published', dict(pool='avg', fc_norm=True), final_norm=False),
}


@pytest.fixture(scope='module', params=WAYS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A stitched classifier and its config."""
    folder = tmp_path_factory.mktemp(request.param)
    config, checkpoint = save_classifier(folder, WAYS[request.param])
    return init_model(config, checkpoint), Config.fromfile(config)


def logits(model: nn.Module, stitch: str, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad(), model.backbone.use_stitch(stitch):
        return model(images).numpy()


def relative(mine: np.ndarray, theirs: np.ndarray) -> float:
    assert mine.shape == theirs.shape
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max())


def test_every_stitch_is_taken_out_with_the_classifier_it_ends_in_alone(loaded: tuple) -> None:
    model, config = loaded
    costs, images = model_costs(model, 64), random_images(3)
    for stitch in model.backbone.space:
        extracted = extract(model, config, stitch.name)[0]
        last = stitch.name.split('-')[-1][0]
        assert isinstance(extracted.backbone, FixedStitchedViT)
        assert list(extracted.head.classifiers) == [last]
        assert sum(one.numel() for one in extracted.parameters()) == costs[stitch].params
        with torch.no_grad():
            found = extracted(images).numpy()
        assert relative(found, logits(model, stitch.name, images)) <= 1e-5


def test_a_graph_of_tokens_needs_the_head_that_classifies_them(loaded: tuple) -> None:
    with pytest.raises(ValueError, match='give the head that classifies'):
        SwitchedBackbone(loaded[0].backbone, ['S3'], (64, 64))


def test_classifiers_that_no_chosen_stitch_ends_in_are_left_out(loaded: tuple) -> None:
    model = loaded[0]
    some = SwitchedInference(model, ['S3', 'L2-S2'], (64, 64))
    assert list(some.backbone.head.classifiers) == ['S']
    assert set(model.head.classifiers) == {'S', 'L'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Path]:
    """A stitched classifier, the folder of one of its stitches, and one of pictures."""
    root = write_pictures(tmp_path_factory.mktemp('folder'), 0, 6)
    config, checkpoint = save_classifier(root)
    model = init_model(config, checkpoint)
    # As in the recipes: for all models of the config.
    cfg = Config.fromfile(config)
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    extracted, fixed = extract(model, cfg, 'L2-S2')
    said = described(model, ['L2-S2'])
    export = root / 'out'
    save_extracted(
        export, extracted, fixed, said,
        check=lambda place: export_onnx(model, said, place / 'model.onnx') and None,
    )  # fmt: skip
    return model, export, root


@torch.no_grad()
def test_stitches_of_one_graph_give_their_logits_whichever_anchor_they_end_in(
    folder: tuple,
) -> None:
    model = folder[0]
    names, images = ['L2-S2', 'L6'], random_images(2)
    switched = SwitchedInference(model, names, (64, 64)).eval()
    for number, name in enumerate(names):
        found = switched(images, torch.tensor(number)).numpy()
        assert relative(found, logits(model, name, images)) <= 1e-5


@torch.no_grad()
def test_the_folder_runs_in_mmpretrain_and_by_itself(folder: tuple) -> None:
    model, export, root = folder
    picture = str(root / 'val' / 'kind2' / '0002.png')
    model.select_stitch('L2-S2')
    alone = load(export)
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # another test may have left its own
        expected = mmpretrain.inference_model(model, picture)
        inferencer = mmpretrain.ImageClassificationInferencer(
            str(export / 'config.py'), pretrained=str(export / 'model.safetensors')
        )
        answers = [mmpretrain.inference_model(alone, picture), *inferencer(picture)]
    for found in answers:
        assert found['pred_class'] == KINDS[found['pred_label']]
        assert relative(found['pred_scores'], expected['pred_scores']) <= 1e-5
    images = random_images(2)
    assert relative(alone(images).numpy(), logits(model, 'L2-S2', images)) <= 1e-5


def test_the_file_of_one_stitch_gives_logits_and_names_classes(folder: tuple) -> None:
    model, export, _ = folder
    session = StitchSession(export / 'model.onnx')
    for batch in (1, 3):
        images = random_images(batch, seed=batch)
        assert relative(session(images.numpy()), logits(model, 'L2-S2', images)) <= 1e-4
    said = session.metadata
    assert said.task == 'classification' and said.outputs == ('logits',)
    assert said.classes == KINDS and said.channel_order == 'rgb' and said.mean == (127.5,) * 3
    assert said.checks['agreement']['labels'] == 1.0
    costs = model_costs(model, 64)['L2-S2']
    assert (said.stitches[0].flops, said.stitches[0].params) == (costs.flops, costs.params)


def test_a_classifier_with_pictures_in_is_refused(folder: tuple, tmp_path: Path) -> None:
    model = folder[0]
    metadata = as_exported(described(model, ['S3']), model, preprocessing=True)
    with pytest.raises(ValueError, match='leave out --with-preprocessing'):
        export_onnx(model, metadata, tmp_path / 'out' / 'whole.onnx')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.slow
def test_a_file_of_all_stitches_gives_the_logits_of_each_in_both_runtimes(
    loaded: tuple, tmp_path: Path
) -> None:
    pytest.importorskip('openvino', reason='needs the extra [openvino]')
    model, _ = loaded
    names = list(model.backbone.space.names)
    export_onnx(model, described(model, names), tmp_path / 'all.onnx', ['fp32', 'openvino'])
    for file in ('all.onnx', 'all.xml'):
        session = StitchSession(tmp_path / file)
        assert list(session.stitches) == names
        for batch in (1, 3):
            images = random_images(batch, seed=batch)
            for name in names:
                session.set_stitch(name)
                found = session(images.numpy())
                assert found.shape == (batch, NUM_CLASSES)
                assert relative(found, logits(model, name, images)) <= 1e-4
    weights = sum(one.nbytes for one in model.state_dict().values())
    assert (tmp_path / 'all.onnx').stat().st_size <= 1.05 * weights + 400_000
