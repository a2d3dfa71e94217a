"""Sessions over files whose outputs are known."""
from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')

from mmsnnet.runtime import StitchSession
from tests.test_runtime.onnx_files import NAMES, metadata, write


@pytest.fixture
def session(tmp_path: Path) -> StitchSession:
    return StitchSession(write(tmp_path / 'model.onnx'), threads=1)


def images(batch: int = 1, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, height, width), dtype=np.float32)


def test_it_begins_with_the_costliest_stitch(session: StitchSession) -> None:
    assert session.stitches == NAMES
    assert session.stitch == 'L4'


@pytest.mark.parametrize(('number', 'name'), list(enumerate(NAMES)))
def test_the_chosen_stitch_runs(session: StitchSession, number: int, name: str) -> None:
    session.set_stitch(name)
    np.testing.assert_allclose(session(images()), images() + 100 * number, rtol=1e-6)


def test_a_stitch_can_be_chosen_at_first(tmp_path: Path) -> None:
    path = write(tmp_path / 'model.onnx')
    assert StitchSession(path, stitch='S2').stitch == 'S2'


def test_a_file_of_one_stitch_has_no_choice_to_make(tmp_path: Path) -> None:
    path = write(tmp_path / 'model.onnx', metadata(('S2',)))
    one = StitchSession(path)
    assert one.stitches == ('S2',)
    np.testing.assert_array_equal(one(images(2)), images(2))


def test_pictures_are_normalised_as_the_file_says(session: StitchSession) -> None:
    session.set_stitch('S2')
    pictures = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    expected = np.stack([(pictures[..., c] - (c + 1.0)) / 2.0 for c in range(3)], axis=1)
    np.testing.assert_allclose(session(pictures), expected, rtol=1e-6)
    np.testing.assert_allclose(session(pictures[0]), expected[:1], rtol=1e-6)


def test_a_budget_takes_the_best_that_keeps_it(session: StitchSession) -> None:
    assert session.set_budget(gflops=3.5).name == 'S1-L2'
    assert session.stitch == 'S1-L2'
    assert session.set_budget(gflops=1.5).name == 'S2'


def test_a_budget_without_metrics_takes_the_costliest_that_keeps_it(tmp_path: Path) -> None:
    path = write(tmp_path / 'model.onnx', metadata(metric=None))
    assert StitchSession(path).set_budget(gflops=3.5).name == 'L4'


def test_a_budget_that_none_keeps_leaves_the_stitch(session: StitchSession) -> None:
    with pytest.raises(ValueError, match=r'No stitch keeps within 0.5 GFLOPs; the cheapest is S2'):
        session.set_budget(gflops=0.5)
    assert session.stitch == 'L4'


def test_a_budget_in_ms_follows_what_was_measured(session: StitchSession) -> None:
    with pytest.raises(ValueError, match='call measure'):
        session.set_budget(ms=5)
    ticks = iter(np.cumsum([0, 0.010, 0.010, 0, 0.002, 0.002]))
    session.measure(['L4', 'S2'], repeats=2, warmup=0, clock=lambda: next(ticks))
    assert session.latency['L4'].median_ms == pytest.approx(10)
    assert session.latency['S2'].images_per_second == pytest.approx(500)
    assert session.set_budget(ms=5).name == 'S2'
    assert session.set_budget(ms=20).name == 'L4'


def test_a_call_can_run_another_stitch_and_the_active_one_stays(session: StitchSession) -> None:
    np.testing.assert_allclose(session(images(), 'S2'), images(), rtol=1e-6)
    np.testing.assert_allclose(session(images()), images() + 200, rtol=1e-6)
    with pytest.raises(ValueError, match="no stitch 'S9'"):
        session(images(), 'S9')


def test_calls_of_several_threads_get_the_stitch_that_each_asked_for(
    session: StitchSession,
) -> None:
    wrong = []

    def call(number: int) -> None:
        for _ in range(50):
            found = session(images(), NAMES[number])
            if not np.allclose(found, images() + 100 * number):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in (0, 1, 2, 0, 1, 2)]
    for thread in threads:
        thread.start()
    session.measure(repeats=20)  # which neither changes theirs
    for thread in threads:
        thread.join()
    assert not wrong and session.stitch == 'L4'


def test_a_sustained_load_is_measured_for_a_time_and_its_ends_are_compared(
    session: StitchSession,
) -> None:
    """A device that is throttled: 1 ms for 100 batches, 4 ms afterwards."""
    ticks = iter(np.cumsum([0.0] + [0.001] * 100 + [0.004] * 1000))
    found = session.measure(
        ['S2'], batch=2, repeats=5, seconds=0.5, warmup=0, clock=lambda: next(ticks)
    )['S2']
    assert found.seconds == pytest.approx(0.5)
    assert found.images_per_second == pytest.approx(200 * 2 / 0.5)
    assert found.first_per_second == pytest.approx(2000)
    assert found.last_per_second == pytest.approx(500)
    assert found.threads == 1


@pytest.mark.parametrize('settings', [
    dict(batch=0), dict(repeats=True), dict(warmup=-1), dict(seconds=-1.0),
    dict(seconds=float('nan')),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(session: StitchSession, settings: dict) -> None:
    with pytest.raises(ValueError, match=r'must be \d or more'):
        session.measure(**settings)


def test_measuring_keeps_the_active_stitch(session: StitchSession) -> None:
    session.set_stitch('S1-L2')
    session.measure(repeats=1, warmup=0)
    assert session.stitch == 'S1-L2'
    assert set(session.latency) == set(NAMES)


def test_qualities_are_such_that_more_is_better(tmp_path: Path) -> None:
    path = write(tmp_path / 'model.onnx', metadata(rule='less'))
    assert StitchSession(path).qualities() == {'S2': -10.0, 'S1-L2': -30.0, 'L4': -20.0}


@pytest.mark.parametrize(('given', 'error', 'match'), [
    (np.zeros((1, 3, 8, 8), np.float32), ValueError, 'takes images of 4 x 6 pixels, got 8 x 8'),
    (np.zeros((1, 4, 4, 6), np.float32), ValueError, r'must be \(B, 3, 4, 6\)'),
    (np.zeros((3, 4, 6), np.float32), ValueError, r'must be \(B, 3, 4, 6\)'),
    (np.zeros((1, 3, 4, 6), np.float64), TypeError, 'uint8 or float32, got float64'),
    (np.zeros((4, 6, 4), np.uint8), ValueError, r'must be \(B, H, W, 3\)'),
    ('picture.jpg', TypeError, 'uint8 or float32, got str'),
])  # fmt: skip
def test_images_that_do_not_fit_are_refused(
    session: StitchSession, given: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        session(given)


def test_an_unknown_stitch_is_refused_and_the_active_one_stays(session: StitchSession) -> None:
    with pytest.raises(ValueError, match=r"no stitch 'S9'; it has 3: S2, S1-L2, L4"):
        session.set_stitch('S9')
    assert session.stitch == 'L4'


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'There is no file .*no\.onnx'):
        StitchSession(tmp_path / 'no.onnx')


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / 'model.onnx').write_text('no graph')
    with pytest.raises(ValueError, match=r'model\.onnx is no ONNX file that can be run'):
        StitchSession(tmp_path / 'model.onnx')
    (tmp_path / 'model.pth').write_text('weights')
    with pytest.raises(ValueError, match='of no kind that can be run'):
        StitchSession(tmp_path / 'model.pth')


@pytest.mark.parametrize(('text', 'match'), [
    ('', 'has no metadata of mmsnnet'),
    ('{', 'another version of mmsnnet, or is damaged'),
    ('{"format": 99}', 'another version'),
    ('[]', 'another version'),
    ('[' * 100000, 'another version'),
    (json.dumps({**json.loads(metadata().to_json()), 'surprise': 1}), 'another version'),
    (json.dumps({**json.loads(metadata().to_json()), 'stitches': []}), 'no or repeated'),
])  # fmt: skip
def test_a_file_that_says_something_else_is_named(tmp_path: Path, text: str, match: str) -> None:
    path = write(tmp_path / 'model.onnx', text=text)
    with pytest.raises(ValueError, match=match):
        StitchSession(path)


def test_metadata_come_back_as_they_were() -> None:
    from mmsnnet.runtime import ModelMetadata

    described = metadata(
        anchors=(('S', 2), ('L', 4)), classes=('wall', 'floor'), palette=((1, 2, 3), (4, 5, 6))
    )
    assert ModelMetadata.from_json(described.to_json(), 'test') == described


def test_metadata_from_before_anchors_were_kept_are_read() -> None:
    from mmsnnet.runtime import ModelMetadata

    content = json.loads(metadata().to_json())
    del content['anchors']
    assert ModelMetadata.from_json(json.dumps(content), 'test') == metadata()
