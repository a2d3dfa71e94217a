"""Exported files against the model in torch that they were made from."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mmsnnet.deploy import export as export_room
from mmsnnet.deploy import verification
from mmsnnet.deploy.agreement import Agreement, compare
from mmsnnet.deploy.check_data import _check_loss, times_in_turn
from mmsnnet.deploy.description import as_exported
from mmsnnet.deploy.export import export_onnx
from mmsnnet.deploy.inference import run_heads, single_inference
from mmsnnet.deploy.onnx_export import export_program
from mmsnnet.deploy.verification import inference_of
from mmsnnet.models import find_stitched_backbone
from mmsnnet.models.host.head_statistics import attached_statistics, head_norms
from mmsnnet.runtime.session import StitchSession
from mmsnnet.runtime.signal_stack import kept_signal_stack
from tests.builders import random_images
from tests.test_deploy.models import CONFIGS, attach_statistics, described, trained

onnx = pytest.importorskip('onnx', reason='needs the extra [deploy]')
pytest.importorskip('onnxscript', reason='needs the extra [deploy]')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs the extra [deploy]')


def model_of(kind: str) -> nn.Module:
    return trained(CONFIGS[kind]())


def in_torch(model: nn.Module, stitch: str, images: np.ndarray) -> np.ndarray:
    """Logits or depth of the host's own whole-image prediction."""
    metas = [dict(img_shape=images.shape[-2:], pad_shape=images.shape[-2:])] * len(images)
    backbone = find_stitched_backbone(model)
    with torch.no_grad(), backbone.use_stitch(stitch):
        return model.encode_decode(torch.from_numpy(images), metas).numpy()


def relative(mine: np.ndarray, theirs: np.ndarray) -> float:
    assert mine.shape == theirs.shape
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max())


def all_nodes(graph: Any) -> list[Any]:
    """Nodes of a graph and of all graphs inside them."""
    inner = [one.g for node in graph.node for one in node.attribute if one.HasField('g')]
    return [*graph.node, *(node for one in inner for node in all_nodes(one))]


@pytest.fixture(scope='module')
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A segmentor with head statistics, and the files of one of its stitches."""
    model, folder = model_of('segmentation'), tmp_path_factory.mktemp('single')
    attach_statistics(model)
    metadata = described(model, ['S2-L2'])
    export_onnx(model, metadata, folder / 'model.onnx', ['fp32', 'int8', 'fp16', 'pt2'])
    return model, folder


@pytest.mark.parametrize('batch', [1, 3])
def test_a_file_of_one_stitch_gives_the_logits_of_the_host(single: tuple, batch: int) -> None:
    images = random_images(batch, seed=5).numpy()
    session = StitchSession(single[1] / 'model.onnx')
    assert relative(session(images), in_torch(single[0], 'S2-L2', images)) <= 1e-4


def test_the_file_says_what_it_is(single: tuple) -> None:
    said = StitchSession(single[1] / 'model.onnx').metadata
    assert said.task == 'segmentation' and said.outputs == ('logits',)
    assert [one.name for one in said.stitches] == ['S2-L2'] and said.image_size == (64, 64)
    assert said.classes == ('wall', 'building', 'sky', 'floor')
    assert said.palette[1] == (7, 9, 11)
    assert said.mean == (127.5,) * 3 and said.channel_order == 'rgb'


@pytest.mark.parametrize(('name', 'precision'), [
    ('model.onnx', 'fp32'), ('model.int8.onnx', 'int8'), ('model.fp16.onnx', 'fp16'),
])
def test_every_file_keeps_what_was_checked(single: tuple, name: str, precision: str) -> None:
    said = StitchSession(single[1] / name).metadata
    assert said.precision == precision
    found = said.checks['agreement']
    assert found['images'] == 4 and found['labels'] >= 0.985
    if precision == 'fp32':
        assert found['relative'] <= 1e-4


@pytest.mark.parametrize(('name', 'least'), [
    ('model.int8.onnx', 0.985), ('model.fp16.onnx', 0.999),
])
def test_lower_precision_keeps_labels(single: tuple, name: str, least: float) -> None:
    images = random_images(4, seed=9).numpy()
    mine = StitchSession(single[1] / name)(images).argmax(1)
    assert (mine == in_torch(single[0], 'S2-L2', images).argmax(1)).mean() >= least


def test_int8_leaves_convolutions_alone_and_makes_the_file_smaller(single: tuple) -> None:
    graph = onnx.load(str(single[1] / 'model.int8.onnx')).graph
    kinds = {node.op_type for node in all_nodes(graph)}
    assert 'Conv' in kinds and 'ConvInteger' not in kinds and 'MatMulInteger' in kinds
    full, small = (single[1] / f'model{kind}.onnx' for kind in ('', '.int8'))
    assert small.stat().st_size < full.stat().st_size


def test_nothing_of_the_exporters_trace_is_in_the_file(single: tuple) -> None:
    model = onnx.load(str(single[1] / 'model.onnx'))
    nodes = all_nodes(model.graph)
    assert not [node for node in nodes if node.doc_string or len(node.metadata_props)]
    assert b'/tests/' not in (single[1] / 'model.onnx').read_bytes()
    assert model.opset_import[0].version == 20


def test_no_other_file_is_left_beside_them(single: tuple) -> None:
    names = {path.name for path in single[1].iterdir()}
    assert names == {'model.onnx', 'model.int8.onnx', 'model.fp16.onnx', 'model.pt2'}


def test_a_file_of_torch_holds_what_the_stitch_runs_alone_and_nothing_of_its_export(
    single: tuple,
) -> None:
    path = single[1] / 'model.pt2'
    program = torch.export.load(path)
    weights = sum(one.numel() for name, one in program.named_parameters())
    assert weights == described(single[0], ['S2-L2']).stitches[0].params
    tensors = sum(one.nbytes for one in program.state_dict.values())
    assert path.stat().st_size <= tensors + 300_000  # its graph, of any width
    inside = ZipFile(path).infolist()
    assert not [one for one in inside if 'input' in one.filename and one.file_size]
    assert b'.py' not in path.read_bytes()
    said = verification.metadata_of(path)
    assert said.stitches[0].name == 'S2-L2' and said.checks['agreement']['relative'] <= 1e-4


@pytest.mark.parametrize('batch', [1, 3])
def test_a_file_of_torch_gives_the_logits_of_the_host(single: tuple, batch: int) -> None:
    images = random_images(batch, seed=5)
    with torch.no_grad():
        found = torch.export.load(single[1] / 'model.pt2').module()(images).numpy()
    assert relative(found, in_torch(single[0], 'S2-L2', images.numpy())) <= 1e-5


def test_a_file_of_one_stitch_of_three_anchors_gives_the_logits_of_the_host(
    tmp_path: Path,
) -> None:
    model, stitch = model_of('three anchors'), 'S1-M1'
    export_onnx(model, described(model, [stitch]), tmp_path / 'model.onnx')
    images = random_images(3, seed=5).numpy()
    found = StitchSession(tmp_path / 'model.onnx')(images)
    assert relative(found, in_torch(model, stitch, images)) <= 1e-4


@pytest.mark.parametrize('kind', ['segmentation', 'depth', 'detection'])
def test_what_a_single_file_is_made_of_is_the_stitch_with_its_statistics_alone(
    kind: str,
) -> None:
    model, images = model_of(kind), random_images(2)
    backbone, stitch = find_stitched_backbone(model), 'L2-S2' if kind == 'segmentation' else 'L2-S1'
    with torch.no_grad(), backbone.use_stitch(stitch):
        common = run_heads(model, model.backbone(images), (64, 64))
        if head_norms(model):
            attach_statistics(model)
        expected = run_heads(model, model.backbone(images), (64, 64))
        alone = single_inference(model, stitch)
        found = alone(images)
    before, expected, found = (
        one if isinstance(one, tuple) else (one,) for one in (common, expected, found)
    )
    for mine, its, other in zip(found, expected, before, strict=True):
        assert relative(mine.numpy(), its.numpy()) <= 1e-5
        assert not head_norms(model) or relative(other.numpy(), its.numpy()) > 1e-3
    held = {name.split('.')[1] for name, _ in alone.named_parameters()}
    assert held == {'backbone', 'neck' if kind == 'detection' else 'decode_head'}
    assert (attached_statistics(model) is None) == (not head_norms(model))


def many(kind: str, folder: Path, **settings: Any) -> tuple[nn.Module, Path, list[str]]:
    """A model and its file of all stitches."""
    model = model_of(kind)
    if settings.pop('statistics', False):
        attach_statistics(model)
    names = list(find_stitched_backbone(model).space.names)
    metadata = as_exported(described(model, names), model, **settings)
    export_onnx(model, metadata, folder / 'all.onnx')
    return model, folder / 'all.onnx', names


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'settings'), [
    ('segmentation', {}), ('segmentation', dict(statistics=True)), ('SETR', {}), ('depth', {}),
    ('relative bias', {}), ('three anchors', {}),
])
def test_a_file_of_all_stitches_gives_the_outputs_of_each(
    kind: str, settings: dict, tmp_path: Path
) -> None:
    model, path, names = many(kind, tmp_path, **settings)
    session = StitchSession(path)
    assert list(session.stitches) == names
    for batch in (1, 3):
        images = random_images(batch, seed=batch).numpy()
        for name in names:
            session.set_stitch(name)
            assert relative(session(images), in_torch(model, name, images)) <= 1e-4
    weights = sum(one.nbytes for one in model.state_dict().values())
    assert path.stat().st_size <= 1.05 * weights + 400_000  # the graph itself, of any width
    for number in (-1, -5, len(names), 10**6):
        feed = dict(images=images, stitch=np.array(number))
        with pytest.raises(Exception, match=r'(?i)out of (bounds|range)|index'):
            onnxruntime.InferenceSession(str(path)).run(None, feed)


@pytest.mark.slow
def test_a_file_of_all_stitches_gives_the_same_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip('openvino', reason='needs the extra [openvino]')
    model = model_of('SETR')
    names = list(find_stitched_backbone(model).space.names)
    export_onnx(model, described(model, names), tmp_path / 'all.onnx', ['openvino'])
    session, images = StitchSession(tmp_path / 'all.xml'), random_images(2, seed=3).numpy()
    assert session.metadata.checks['agreement']['relative'] <= 1e-4
    for name in names:
        session.set_stitch(name)
        assert relative(session(images), in_torch(model, name, images)) <= 1e-4


@pytest.mark.slow
def test_in_openvino_every_call_is_right_in_whatever_order_stitches_and_batches_come(
    tmp_path: Path,
) -> None:
    pytest.importorskip('openvino', reason='needs the extra [openvino]')
    model, names = model_of('SETR'), ['S2', 'L4', 'S1-L2', 'L2-S1']
    export_onnx(model, described(model, names), tmp_path / 'all.onnx', ['openvino'])
    images = {batch: random_images(batch, seed=batch).numpy() for batch in (1, 2, 3)}
    calls = [(name, batch) for name in names for batch in images]
    expected = {call: in_torch(model, call[0], images[call[1]]) for call in calls}
    for seed in range(8):
        session = StitchSession(tmp_path / 'all.xml', threads=1 + seed % 2)
        for name, batch in random.Random(seed).sample(2 * calls, 2 * len(calls)):
            assert relative(session(images[batch], name), expected[name, batch]) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('preprocessing', [False, True])
def test_torchs_own_format_holds_several_stitches_and_takes_single_images(
    tmp_path: Path, preprocessing: bool
) -> None:
    model, names = model_of('SETR'), ['S2', 'S1-L2']
    metadata = as_exported(described(model, names), model, preprocessing=preprocessing)
    export_onnx(model, metadata, tmp_path / 'all.onnx', ['pt2'])
    run = torch.export.load(tmp_path / 'all.pt2').module()
    for batch in (1, 3):
        images = random_images(batch, seed=batch).numpy()
        if preprocessing:
            shape = (batch, 50, 70, 3)
            images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for number, name in enumerate(names):
            with torch.no_grad():
                found = run(torch.from_numpy(images), torch.tensor(number)).numpy()
                expected = inference_of(model, metadata, name)(torch.from_numpy(images)).numpy()
            if preprocessing:
                assert found.shape == (batch, 50, 70) and (found == expected).mean() >= 0.9999
            else:
                assert relative(found, expected) <= 1e-5


@pytest.mark.parametrize('size', [(64, 64), (96, 48)])
def test_a_graph_of_a_stitch_with_relative_bias_takes_any_batch(size: tuple[int, int]) -> None:
    model, stitch = model_of('relative bias'), 'S1-L2'
    metadata = described(model, [stitch], size)
    graph = export_program(inference_of(model, metadata), random_images(2, *size), metadata)
    for batch in (1, 3):
        images = random_images(batch, *size)
        with torch.no_grad():
            found = graph.module()(images).numpy()
        assert relative(found, in_torch(model, stitch, images.numpy())) <= 1e-5


@pytest.fixture(scope='module')
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, list[str]]:
    """A file of two stitches that takes pictures."""
    model, names = model_of('SETR'), ['S2', 'S1-L2']
    metadata = as_exported(described(model, names), model, preprocessing=True)
    path = tmp_path_factory.mktemp('two') / 'two.onnx'
    export_onnx(model, metadata, path)
    return model, path, names


@pytest.mark.parametrize('size', [(64, 64), (50, 81), (130, 70)])
def test_a_file_with_preprocessing_gives_labels_of_pictures_of_any_size(
    two: tuple, size: tuple[int, int]
) -> None:
    model, path, names = two
    session = StitchSession(path)
    pictures = np.random.default_rng(2).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    said = session.metadata
    mean, std = (torch.tensor(one).reshape(1, -1, 1, 1) for one in (said.mean, said.std))
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    images = (functional.interpolate(images, (64, 64), mode='bilinear') - mean) / std
    for name in names:
        session.set_stitch(name)
        labels = session(pictures)
        logits = torch.from_numpy(in_torch(model, name, images.numpy()))
        wanted = functional.interpolate(logits, size, mode='bilinear').argmax(1).numpy()
        assert labels.dtype == np.uint8 and labels.shape == (2, *size)
        assert (labels == wanted).mean() >= 0.9999


def test_stitches_of_one_file_differ_and_numbers_of_none_are_refused(two: tuple) -> None:
    _, path, names = two
    session = onnxruntime.InferenceSession(str(path))
    pictures = np.random.default_rng(2).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    first, second = (
        session.run(None, dict(images=pictures, stitch=np.array(number)))[0] for number in (0, 1)
    )
    assert not np.array_equal(first, second)
    for number in (-1, -2, len(names)):
        with pytest.raises(Exception, match=r'(?i)out of (bounds|range)|index'):
            session.run(None, dict(images=pictures, stitch=np.array(number)))


def in_openvino(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The first output of a file in OpenVINO alone, compiled afresh."""
    openvino = pytest.importorskip('openvino', reason='needs the extra [openvino]')
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    with kept_signal_stack():
        compiled = openvino.Core().compile_model(str(path), 'CPU', settings)
    return lambda feed: compiled(feed)[0]


def test_the_first_inferences_of_openvino_are_right_whichever_stitch_and_batch_they_are_of(
    two: tuple,
) -> None:
    _, path, names = two
    session, seen = onnxruntime.InferenceSession(str(path)), np.random.default_rng(4)
    for number in range(len(names)):
        run = in_openvino(path)
        for batch in (1, 4):
            pictures = seen.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
            feed = dict(images=pictures, stitch=np.array(number))
            assert (run(feed) == session.run(None, feed)[0]).mean() >= 0.999


def test_openvino_gives_an_empty_batch_for_the_number_of_no_stitch(two: tuple) -> None:
    _, path, names = two
    run, pictures = in_openvino(path), np.zeros((1, 64, 64, 3), np.uint8)
    for number in (-1, -len(names), len(names), 99):
        assert len(run(dict(images=pictures, stitch=np.array(number)))) == 0
    assert len(run(dict(images=pictures, stitch=np.array(0)))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'stitch'), [('segmentation', 'S1-L4'), ('SETR', 'L2-S1')])
def test_a_file_of_any_size_is_exact_at_sizes_that_it_was_not_checked_on(
    kind: str, stitch: str, tmp_path: Path
) -> None:
    model = model_of(kind)
    metadata = as_exported(described(model, [stitch]), model, dynamic_size=True)
    export_onnx(model, metadata, tmp_path / 'any.onnx')
    session = StitchSession(tmp_path / 'any.onnx')
    for height, width in ((64, 64), (48, 160), (192, 96)):
        images = random_images(2, height, width).numpy()
        assert relative(session(images), in_torch(model, stitch, images)) <= 1e-4


@pytest.mark.slow
def test_a_model_without_an_exact_graph_of_any_size_is_refused(tmp_path: Path) -> None:
    model = model_of('depth')
    metadata = as_exported(described(model, ['S2']), model, dynamic_size=True)
    with pytest.raises(ValueError, match=r'--size|does not compute') as caught:
        export_onnx(model, metadata, tmp_path / 'out' / 'any.onnx')
    assert '\n' not in str(caught.value)
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.slow
def test_of_a_detector_backbone_and_neck_are_exported(tmp_path: Path) -> None:
    model = model_of('detection')
    export_onnx(model, described(model, ['L2-S1']), tmp_path / 'maps.onnx')
    session, images = StitchSession(tmp_path / 'maps.onnx'), random_images(2, seed=4)
    backbone = find_stitched_backbone(model)
    with torch.no_grad(), backbone.use_stitch('L2-S1'):
        wanted = model.neck(model.backbone(images))
    found = session(images.numpy())
    assert session.metadata.task == 'features' and len(found) == len(wanted) == 5
    assert all(relative(mine, its.numpy()) <= 1e-4 for mine, its in zip(found, wanted))


def test_a_detector_with_pictures_in_is_refused(tmp_path: Path) -> None:
    model = model_of('detection')
    metadata = as_exported(described(model, ['S2']), model, preprocessing=True)
    with pytest.raises(ValueError, match='heads are not in the file'):
        export_onnx(model, metadata, tmp_path / 'out' / 'whole.onnx')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize(('settings', 'size', 'message'), [
    ({}, (60, 64), 'multiples of the patch'),
    (dict(preprocessing=True, dynamic_size=True), (64, 64), 'Leave out one'),
])
def test_what_cannot_be_exported_is_refused_before(
    settings: dict, size: tuple[int, int], message: str
) -> None:
    model = model_of('SETR')
    said = dataclasses.replace(described(model, ['S2']), image_size=size)
    with pytest.raises(ValueError, match=message):
        as_exported(said, model, **settings)


def test_several_stitches_of_any_size_are_refused() -> None:
    model = model_of('SETR')
    with pytest.raises(ValueError, match='one stitch'):
        as_exported(described(model, ['S2', 'L4']), model, dynamic_size=True)


def test_a_file_that_disagrees_never_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of('SETR')

    def wrong(path: Path) -> Callable[..., list[np.ndarray]]:
        return lambda images, number: [np.zeros((len(images), 4, 64, 64), np.float32)]

    monkeypatch.setattr(verification, 'runner_of', wrong)
    with pytest.raises(ValueError, match='does not compute what the model does'):
        export_onnx(model, described(model, ['S2']), tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / 'model.onnx').write_text('mine')
    model = model_of('SETR')
    with pytest.raises(FileExistsError, match='--overwrite'):
        export_onnx(model, described(model, ['S2']), tmp_path / 'model.onnx')
    assert (tmp_path / 'model.onnx').read_text() == 'mine'


def test_a_form_that_there_is_not_is_refused(tmp_path: Path) -> None:
    model = model_of('SETR')
    with pytest.raises(ValueError, match='int4'):
        export_onnx(model, described(model, ['S2']), tmp_path / 'model.onnx', ['int4'])


def test_weights_beyond_one_file_are_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of('SETR')
    monkeypatch.setattr(export_room, 'MOST_BYTES', 1000)
    with pytest.raises(ValueError, match='--stitches'):
        export_onnx(model, described(model, ['S2', 'L4']), tmp_path / 'model.onnx')


def test_equal_labels_are_counted_of_logits_and_of_labels_alike() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 4, 8, 8), dtype=np.float32)
    other = logits.copy()
    other[0, :, 0, 0] = -other[0, :, 0, 0]
    of_logits = compare(lambda _: [other], lambda _: [logits], [logits], True)
    of_labels = compare(
        lambda _: [other.argmax(1)], lambda _: [logits.argmax(1)], [logits], True
    )
    assert of_logits.labels == of_labels.labels == 1 - 1 / 128
    assert of_labels.relative is None and of_logits.relative > 0.1


def test_the_root_mean_square_is_that_of_the_worst_output_over_all_batches() -> None:
    draw = np.random.default_rng(0).standard_normal
    first, second = draw((2, 3, 4, 4)), draw((2, 5, 2, 2))
    outputs = {False: [first, second], True: [1.01 * first, 1.03 * second]}
    found = compare(lambda x: outputs[True], lambda x: outputs[False], [first, first], False)
    assert found.labels is None and found.rmse == pytest.approx(0.03)


@pytest.mark.parametrize(('precision', 'rmse'), [('fp16', 0.006), ('int8', 0.06)])
def test_without_labels_lower_precision_must_stay_close(precision: str, rmse: float) -> None:
    with pytest.raises(ValueError, match='root mean square difference of') as caught:
        Agreement(0.5, None, 4, rmse).check(precision, 'maps.onnx')
    assert 'labels' not in str(caught.value)
    Agreement(0.5, None, 4, rmse / 2).check(precision, 'maps.onnx')
    Agreement(0.5, 1.0, 4, rmse).check(precision, 'logits.onnx')


@pytest.mark.parametrize('precision', ['fp16', 'int8', 'fp32'])
@pytest.mark.parametrize('pictures', [False, True])
def test_lower_precision_that_fails_on_noise_points_to_pictures(
    monkeypatch: pytest.MonkeyPatch, precision: str, pictures: bool
) -> None:
    model = model_of('SETR')
    wrong = lambda images, number: [np.zeros((len(images), 4, 64, 64), np.float32)]  # noqa: E731
    monkeypatch.setattr(verification, 'runner_of', lambda path: wrong)
    said = dataclasses.replace(described(model, ['S2']), precision=precision)
    images = [random_images(1).numpy()] if pictures else []
    with pytest.raises(ValueError, match='x under S2 does not compute') as caught:
        verification.check_file(model, Path('x.onnx'), images, said, 'x')
    assert ('--check-data' in str(caught.value)) == (precision != 'fp32' and not pictures)


@pytest.mark.parametrize('free', [False, True])
def test_a_file_that_its_runtime_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, free: bool
) -> None:
    def fail(images: np.ndarray, number: int) -> list[np.ndarray]:
        raise RuntimeError('of a runtime:\n9 by 10')

    model = model_of('SETR')
    monkeypatch.setattr(verification, 'runner_of', lambda path: fail)
    said = dataclasses.replace(described(model, ['S2']), dynamic_size=free)
    with pytest.raises(ValueError, match=r'does not run on .* 9 by 10\)') as caught:
        verification.check_file(model, Path('x.onnx'), [], said, 'x.onnx')
    assert '\n' not in str(caught.value) and ('--size' in str(caught.value)) == free


def test_ratios_of_times_are_those_of_neighbours_whatever_the_load_does() -> None:
    now, load = [0.0], iter(range(1, 100))

    def takes(seconds: float) -> Callable[[np.ndarray], list]:
        def run(images: np.ndarray) -> list:
            now[0] += seconds * ((next(load) + 1) // 2)  # both of a pair under the same load
            return []

        return run

    images = [np.zeros((1, 3, 8, 8))]
    found = times_in_turn(takes(0.002), takes(0.004), images, clock=lambda: now[0])
    assert found['time_of_fp32'] == pytest.approx(0.5)
    assert found['ms'] > 2 and found['ms_of_fp32'] > 4


def test_depth_may_lose_little_of_its_error() -> None:
    found = dict(images=9, metrics=dict(rmse=0.505), metrics_in_torch=dict(rmse=0.5))
    _check_loss(Path('x.int8.onnx'), found)
    found['metrics'] = dict(rmse=0.52)
    with pytest.raises(ValueError, match=r'4\.0 % more rmse'):
        _check_loss(Path('x.int8.onnx'), found)


@pytest.mark.parametrize('found', [
    Agreement(1e-3, 1.0, 4), Agreement(1e-6, 0.99, 4), Agreement(float('inf'), 1.0, 4),
    Agreement(None, 0.99, 4),
])
def test_agreement_below_the_bars_is_refused(found: Agreement) -> None:
    with pytest.raises(ValueError, match='fp32 must keep'):
        found.check('fp32', 'model.onnx')
