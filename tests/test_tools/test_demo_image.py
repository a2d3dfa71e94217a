"""The demos of pictures and videos: what they write with every kind of model, and refuse."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model

from mmsnnet.apis import init_model
from mmsnnet.deploy.description import describe
from mmsnnet.deploy.extraction import extract, save_extracted
from mmsnnet.evaluation.cost.model_cost import model_costs
from mmsnnet.runtime import BudgetController
from tests.toy_segmentation import ROOT
from tests.trained_segmentor import Trained
from tools import _predictor, demo_image, demo_video
from tools._overlay import depth_range, paint_classes, paint_depths, palette_for, with_text
from tools._predictor import Prediction, Predictor, TorchPredictor


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    generator = np.random.default_rng(1)
    paths = [folder / f'{name}.png' for name in ('a', 'b')]
    for path in paths:
        cv2.imwrite(str(path), generator.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return paths


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """Twelve frames of 90 x 62 pixels."""
    path = tmp_path_factory.mktemp('video') / 'in.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (90, 62))
    generator = np.random.default_rng(2)
    for _ in range(12):
        writer.write(generator.integers(0, 256, (62, 90, 3), dtype=np.uint8))
    writer.release()
    return path


def words(*given):
    return list(map(str, given))


def of_model(trained):
    return words(trained.config, trained.checkpoint, '--results', trained.results)


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


def test_the_pictures_hold_the_prediction_of_the_chosen_stitch(trained, pictures, tmp_path, capsys):
    given = [*of_model(trained), '--images', *words(*pictures), '--out', str(tmp_path)]
    assert demo_image.main([*given, '--stitch', 'S2-L2']) == 0
    out = capsys.readouterr().out
    assert out.count('S2-L2: ') == 2 and 'mIoU 41' in out and ' ms' in out
    model = init_model(trained.config, trained.checkpoint)
    model.select_stitch('S2-L2')
    for path in pictures:
        bgr = cv2.imread(str(path))
        labels = inference_model(model, bgr).pred_sem_seg.data[0].numpy()
        palette = np.array(model.dataset_meta['palette'], np.uint8)
        expected = paint_classes(bgr[..., ::-1], labels, palette)[..., ::-1]
        shown = cv2.imread(str(tmp_path / path.name))
        factor = shown.shape[1] // 80
        assert np.array_equal(shown[-60 * factor :: factor, ::factor], expected)


def test_three_stitches_stand_side_by_side(trained, pictures, tmp_path, capsys):
    given = [*of_model(trained), '--images', str(pictures[0]), '--out', str(tmp_path)]
    assert demo_image.main([*given, '--stitch', 'S2-L2', '--side-by-side']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(': ')[1] for line in lines] == ['S3', 'S2-L2', 'L6']
    assert cv2.imread(str(tmp_path / 'a.png')).shape[1] == 3 * 240


def test_an_extracted_stitch_gives_the_same_picture(trained, pictures, tmp_path):
    model = init_model(trained.config, trained.checkpoint, results=trained.results)
    extracted, fixed = extract(model, Config.fromfile(trained.config), 'L2-S2')
    metadata = describe(model, ['L2-S2'], model_costs(model, 64), (64, 64), model.chooser)
    folder = save_extracted(tmp_path / 'extracted', extracted, fixed, metadata)
    image = ['--images', str(pictures[0])]
    given = [*of_model(trained), '--stitch', 'L2-S2', *image, '--out', str(tmp_path / 'one')]
    assert demo_image.main(given) == 0
    assert demo_image.main([str(folder), *image, '--out', str(tmp_path / 'two')]) == 0
    one, two = (cv2.imread(str(tmp_path / name / 'a.png'))[-180:] for name in ('one', 'two'))
    assert np.array_equal(one, two)


@pytest.mark.slow
def test_an_exported_file_agrees_with_the_model_on_pictures_of_its_size(trained, tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from mmsnnet.deploy.export import export_onnx
    from tools._predictor import FilePredictor

    model = init_model(trained.config, trained.checkpoint, results=trained.results)
    names = ['S3', 'S1-L4', 'L6']
    metadata = describe(model, names, model_costs(model, 64), (64, 64), model.chooser)
    export_onnx(model, metadata, tmp_path / 'all.onnx')
    file, torch_one = FilePredictor(str(tmp_path / 'all.onnx')), TorchPredictor(
        model, 'model', model.chooser
    )
    assert file.ladder() == [name for name in torch_one.ladder() if name in names]
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in names:
        same = file.predict(picture, name).map == torch_one.predict(picture, name).map
        assert same.mean() > 0.999
    wide = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    assert file.predict(wide, 'S3').map.shape == (50, 90)


def test_a_depth_estimator_gives_depths(pictures):
    model = init_model(Config.fromfile(ROOT / 'configs' / 'dpt_snnetv2_rooms.py'))
    predictor = TorchPredictor(model, 'depth', model.chooser)
    picture = cv2.imread(str(pictures[0]))[..., ::-1].copy()
    found = predictor.predict(picture, 'S6')
    model.select_stitch('S6')
    expected = inference_model(model, picture[..., ::-1].copy()).pred_depth_map.data[0]
    assert predictor.task == 'depth' and found.ms > 0
    assert torch.equal(torch.from_numpy(found.map), expected)


def test_a_video_is_written_frame_by_frame_with_the_prediction(trained, video, tmp_path, capsys):
    out = tmp_path / 'new' / 'out.avi'
    given = [*of_model(trained), '--video', str(video), '--out', str(out), '--gflops', '1']
    assert demo_video.main(given) == 0
    said = capsys.readouterr().out
    assert said.startswith('12 frames, median ') and 'frames of each stitch: L6 12' in said
    frames = frames_of(out)
    assert len(frames) == 12
    model = init_model(trained.config, trained.checkpoint)
    model.select_stitch('L6')
    source = frames_of(video)[5]
    labels = inference_model(model, source).pred_sem_seg.data[0].numpy()
    palette = np.array(model.dataset_meta['palette'], np.uint8)
    painted = paint_classes(source[..., ::-1].copy(), labels, palette)
    expected = with_text(painted, ['x'])[..., ::-1]
    height = 62 * (expected.shape[1] // 90)
    difference = np.abs(frames[5][-height:].astype(int) - expected[-height:])
    assert difference.mean() < 8  # codec


@pytest.mark.parametrize('suffix', ['.mp4', '.avi'])
def test_frames_of_odd_sizes_are_written_to_both_kinds(tmp_path, suffix):
    out = tmp_path / f'out{suffix}'
    with demo_video.writing(out, 10) as append:
        for _ in range(3):
            append(np.full((33, 51, 3), 90, np.uint8))
        assert not out.exists()
    assert [frame.shape for frame in frames_of(out)] == [(34, 52, 3)] * 3
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_no_video(tmp_path):
    def fail():
        with demo_video.writing(tmp_path / 'out.avi', 10) as append:
            append(np.zeros((32, 32, 3), np.uint8))
            raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        fail()
    assert not list(tmp_path.iterdir())


class Timed(Predictor):
    """A predictor whose stitches take 1 ms for each GFLOP, times the load of each frame."""

    def __init__(self, chooser, loads):
        super().__init__('timed', 'segmentation', chooser, ('a',), ())
        self.loads, self.ran = iter(loads), []

    def measure(self, picture, stitches):
        return {name: 1000 * self.chooser[name].cost('gflops') for name in stitches}

    def predict(self, picture, stitch):
        self.ran.append(stitch)
        ms = 1000 * self.chooser[stitch].cost('gflops') * next(self.loads)
        return Prediction(stitch, np.zeros(picture.shape[:2], np.int64), ms)


def test_the_deadline_chooses_the_stitch_of_each_frame(trained, video):
    """A load that doubles after six frames, against a controller that sees the same times."""
    chooser = init_model(trained.config, results=trained.results).chooser
    loads = [1.0] * 6 + [2.0] * 6
    predictor = Timed(chooser, loads)
    cost = {one.name: 1000 * one.cost('gflops') for one in chooser.front()}
    deadline = 1.3 * max(cost.values())
    args = demo_video.parse_args(
        ['x.onnx', '--video', str(video), '--out', 'o.avi', '--deadline', str(deadline)]
    )
    frames = []
    lines = demo_video.run(predictor, demo_video.Video(str(video)), args, frames.append)
    quality = {name: chooser[name].quality for name in cost}
    twin = BudgetController(latency=cost, quality=quality, deadline_ms=deadline)
    expected = []
    for load in loads:
        expected.append(twin.stitch)
        twin.observe(cost[twin.stitch] * load)
    assert predictor.ran == expected and len(set(expected)) > 1
    assert len(frames) == 12 and f'{twin.misses} missed' in lines[1]


def test_a_deadline_that_nothing_keeps_is_said(trained, video, tmp_path, capsys):
    given = [*of_model(trained), '--video', str(video), '--out', str(tmp_path / 'o.avi')]
    assert demo_video.main([*given, '--deadline', '0.001', '--max-frames', '2']) == 0
    said = capsys.readouterr().out
    assert '2 missed' in said and 'even the cheapest stitch does not keep' in said
    assert ' 0 switches' in said


def test_a_budget_in_ms_takes_what_was_measured_here(trained):
    args = demo_image.parse_args(
        [*of_model(trained), '--measure', '--ms', '1e6', '--images', 'x', '--out', 'y']
    )
    predictor = _predictor.load_predictor(args)
    assert all(one.ms > 0 for one in predictor.chooser.candidates)
    assert _predictor.pick_stitch(predictor, args) == max(
        trained.records, key=lambda one: one['metrics']['mIoU']
    )['name']
    unmeasured = demo_image.parse_args(
        [*of_model(trained), '--ms', '5', '--images', 'x', '--out', 'y']
    )
    with pytest.raises(ValueError, match='--ms needs the latency here: add --measure'):
        _predictor.pick_stitch(_predictor.load_predictor(unmeasured), unmeasured)


def test_labels_of_planes_made_larger_are_those_of_all_planes_at_once():
    planes = np.random.default_rng(0).standard_normal((7, 9, 11)).astype(np.float32)
    whole = np.stack([cv2.resize(one, (40, 30)) for one in planes]).argmax(0)
    assert np.array_equal(_predictor.argmax_resized(planes, (30, 40)), whole)


def test_the_ladder_is_the_front_or_spread_over_the_costs(trained):
    scored = init_model(trained.config, results=trained.results)
    front = [one.name for one in scored.chooser.front()]
    assert TorchPredictor(scored, '', scored.chooser).ladder() == front
    plain = init_model(trained.config)
    rungs = TorchPredictor(plain, '', plain.chooser).ladder()
    flops = [plain.chooser[name].flops for name in rungs]
    assert flops == sorted(flops) and (rungs[0], rungs[-1]) == ('S3', 'L6')


@pytest.mark.parametrize(('more', 'text'), [
    (['--images', 'no.png'], 'There is no file no.png.'),
    (['--images', __file__], 'is no picture that can be read.'),
    (['--images', 'x/a.png', 'y/a.png'], 'Several pictures would be written to'),
])  # fmt: skip
def test_what_cannot_be_shown_is_said_in_one_line(tmp_path, more, text, capsys):
    assert demo_image.main(['m.onnx', '--out', str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count('\n') == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('more', 'text'), [
    (['--out', 'o.mkv'], '--out o.mkv must end in .mp4 or .avi.'),
    (['--out', 'o.avi', '--deadline', '5', '--gflops', '1'], '--deadline chooses the stitch'),
    (['--out', 'o.avi', '--deadline', '0'], '--deadline 0 must be above 0 ms.'),
    (['--out', 'o.avi', '--max-frames', '0'], '--max-frames 0 must be 1 or more.'),
    (['--out', 'o.avi'], 'There is no video none.avi.'),
    (['--out', 'o.avi', '--video', __file__], 'is no video.'),
    (['--out', 'o.avi', '--video', '77'], 'There is no camera 77.'),
    (['--out', 'o.avi', '--video', '9' * 12], 'There is no camera 999999999999.'),
])  # fmt: skip
def test_what_cannot_be_filmed_is_said_in_one_line(more, text, capfd):
    """OpenCV and FFmpeg write to the terminal past Python."""
    assert demo_video.main(['m.onnx', '--video', 'none.avi', *more]) == 2
    error = capfd.readouterr().err
    assert text in error and error.startswith('demo_video: error: ') and error.count('\n') == 1


def test_existing_files_stay_unless_they_may_go(trained, pictures, video, tmp_path, capsys):
    taken = tmp_path / 'a.png'
    taken.write_text('mine')
    given = [*of_model(trained), '--images', str(pictures[0]), '--out', str(tmp_path)]
    assert demo_image.main(given) == 2 and taken.read_text() == 'mine'
    assert demo_image.main([*given, '--overwrite']) == 0 and cv2.imread(str(taken)) is not None
    film = tmp_path / 'o.avi'
    film.write_text('mine')
    assert demo_video.main(['m.onnx', '--video', str(video), '--out', str(film)]) == 2
    assert film.read_text() == 'mine' and 'exists already' in capsys.readouterr().err


def test_colours_of_depths_run_from_bright_to_dark_and_bear_what_is_not_finite():
    depths = np.array([[1.0, 2.0, 3.0, np.nan, np.inf]], np.float32)
    sums = paint_depths(depths, (1.0, 3.0)).astype(int).sum(-1)[0]
    assert sums[0] > sums[1] > sums[2] == sums[3] == sums[4]
    assert depth_range(np.full((2, 2), np.nan)) == (0.0, 1.0)


def test_classes_beyond_the_palette_have_colours_of_their_own():
    given = np.array([[1, 2, 3]], np.uint8)
    before = copy.deepcopy(given)
    colours = palette_for(given, 20)
    assert tuple(colours[0]) == (1, 2, 3) and len({tuple(one) for one in colours}) == 20
    assert np.array_equal(given, before)
