"""The web page of two budgets: its server, its limits, and what a real browser makes of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.toy_segmentation import ROOT
from tests.trained_segmentor import Trained

pytest.importorskip('fastapi', reason='the page is served by FastAPI: pip install fastapi')
pytest.importorskip('uvicorn', reason='the page is served by uvicorn: pip install uvicorn')

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason='the page is used in a browser: needs chromium or google-chrome'
)


def picture_bytes(side=80, kind='PNG'):
    blocks = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels = cv2.resize(blocks, (side + 16, side))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def arguments(*given):
    from tools.web_demo import parse_args

    return parse_args(list(map(str, given)))


@contextmanager
def serving(args):
    """Address of a server that runs in a thread."""
    import uvicorn

    from tools.web_demo import listen, make_app

    listening = listen('127.0.0.1', 0)
    server = uvicorn.Server(uvicorn.Config(make_app(args), log_level='error', lifespan='off'))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listening]), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{listening.getsockname()[1]}'
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def address(trained, tmp_path_factory):
    samples = tmp_path_factory.mktemp('samples')
    for number in range(2):
        (samples / f'{number}.png').write_bytes(picture_bytes(64 + 8 * number))
    given = [trained.config, trained.checkpoint, '--results', trained.results]
    with serving(arguments(*given, '--samples', samples, '--max-megabytes', 1)) as found:
        yield found


def ask(url, body=None, **headers):
    """Status and content of an answer."""
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def upload(address, body):
    status, content, _ = ask(f'{address}/api/pictures', body)
    return status, json.loads(content)


def data_of(address):
    page = ask(f'{address}/')[1].decode()
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_the_stitches_of_the_sweep(address, trained):
    (sweep,) = data_of(address)['sweeps']
    assert {one['name'] for one in sweep['stitches']} == set(trained.costs.space.names)
    assert data_of(address)['samples'] == ['sample-0', 'sample-1']


def test_a_prediction_is_that_of_the_model(address, trained):
    """The image of the page against colours painted here over the map of mmseg's function."""
    import _overlay
    from mmseg.apis import inference_model

    from mmsnnet.apis import init_model

    picture = np.array(Image.open(io.BytesIO(picture_bytes())))
    model = init_model(trained.config, trained.checkpoint)
    status, held = upload(address, picture_bytes())
    assert status == 200
    for stitch in ('S3', 'S2-L2'):
        query = f'{address}/api/prediction?picture={held["id"]}&stitch={stitch}'
        answer = json.loads(ask(query)[1])
        model.select_stitch(stitch)
        labels = inference_model(model, picture[..., ::-1].copy()).pred_sem_seg.data[0].numpy()
        palette = np.array(model.dataset_meta['palette'], np.uint8)
        content = base64.b64decode(answer['image'].partition(',')[2])
        seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        expected = _overlay.paint_classes(picture, labels, palette)
        assert np.abs(seen.astype(int) - expected).mean() < 4  # JPEG
        shares = np.bincount(labels.ravel(), minlength=4) / labels.size
        assert sum(one['share'] for one in answer['classes']) == pytest.approx(1)
        assert answer['classes'][0]['share'] == pytest.approx(shares.max())
        assert answer['ms'] > 0 and answer['stitch'] == stitch


@pytest.mark.parametrize(('body', 'status', 'text'), [
    (b'hello', 415, 'This file is no picture; PNG, JPEG, WEBP, BMP are taken.'),
    (b'', 415, 'This file is no picture; PNG, JPEG, WEBP, BMP are taken.'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, 'This file is no picture'),
    (picture_bytes()[:400], 415, 'This picture is damaged and cannot be read.'),
    (picture_bytes(8, 'GIF'), 415, 'This file is no picture'),
    (b'x' * 1_000_001, 413, 'The file is too large; at most 1 MB are taken.'),
])  # fmt: skip
def test_what_is_no_picture_or_too_large_is_refused_in_one_line(address, body, status, text):
    got, content = upload(address, body)
    assert got == status
    assert content['detail'].startswith(text) and '\n' not in content['detail']


@pytest.mark.parametrize('side', [6000, 20000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(address, side):
    """A few kilobytes that unfold to gigabytes: Pillow reads their size from the header."""
    buffer = io.BytesIO()
    Image.new('1', (side, side)).save(buffer, 'PNG', compress_level=9)
    start = time.monotonic()
    status, content = upload(address, buffer.getvalue())
    assert status == 413 and 'pixels' in content['detail']
    assert time.monotonic() - start < 5


def test_the_file_that_exceeds_the_limit_is_not_read_to_its_end(address):
    """A body that never ends, in chunks: the answer comes at the limit."""
    host, port = address.removeprefix('http://').split(':')
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b'POST /api/pictures HTTP/1.1\r\nHost: localhost\r\n'
                           b'Transfer-Encoding: chunked\r\n\r\n')  # fmt: skip
        for _ in range(20):
            connection.sendall(b'10000\r\n' + b'x' * 0x10000 + b'\r\n')
        assert b'413' in connection.recv(100)


def test_what_the_model_has_not_is_said(address):
    status, content, _ = ask(f'{address}/api/prediction?picture=sample-0&stitch=S9')
    assert (status, json.loads(content)['detail']) == (404, 'This model has no such stitch.')
    status, content, _ = ask(f'{address}/api/prediction?picture=x&stitch=S3')
    assert status == 404 and 'upload it again' in json.loads(content)['detail']


def test_pages_and_names_of_elsewhere_are_refused(address):
    assert ask(f'{address}/', Host='elsewhere.example')[0] == 400
    other = {'Sec-Fetch-Site': 'cross-site'}
    assert ask(f'{address}/api/pictures', picture_bytes(), **other)[0] == 403
    assert ask(f'{address}/docs')[0] == 404


def test_the_policy_of_the_page_names_no_other_host(address):
    page, headers = ask(f'{address}/')[1:]
    policy = headers['Content-Security-Policy']
    assert policy.startswith("default-src 'none'") and 'unsafe' not in policy
    assert 'http' not in policy and '*' not in policy
    urls = set(re.findall(r'(?:https?:)?//[\w.]+\.\w+', page.decode()))
    assert urls <= {'http://www.w3.org'}


def test_predictions_run_one_at_a_time():
    from mmsnnet.results.candidate import Candidate
    from mmsnnet.results.chooser import Chooser
    from tools._predictor import Prediction, Predictor
    from tools.web.app import MAX_REPEATS, Exhibit
    from tools.web.pictures import Pictures

    at_work, most = [], []

    class Slow(Predictor):
        def predict(self, picture, stitch):
            at_work.append(stitch)
            most.append(len(at_work))
            time.sleep(0.02)
            at_work.pop()
            return Prediction(stitch, np.zeros(picture.shape[:2], np.int64), 1.0)

    chooser = Chooser([Candidate('S3', 'S', 1, 1)])
    pictures = Pictures()
    exhibit = Exhibit(Slow('slow', 'segmentation', chooser, (), ()), pictures)
    name = pictures.add(picture_bytes())
    threads = [threading.Thread(target=exhibit.predict, args=(name, 'S3')) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    once_to_warm_up, each_is_timed_often = 1, 1 + MAX_REPEATS
    assert len(most) == once_to_warm_up + 5 * each_is_timed_often and max(most) == 1


def test_old_uploads_make_room_and_samples_stay(tmp_path):
    from tools.web.pictures import MAX_HELD, Pictures, UploadError

    sample = tmp_path / 'sample.png'
    sample.write_bytes(picture_bytes())
    pictures = Pictures([sample])
    names = [pictures.add(picture_bytes(8)) for _ in range(MAX_HELD + 1)]
    with pytest.raises(UploadError, match='upload it again'):
        pictures[names[0]]
    assert pictures[names[1]].shape == (8, 24, 3)
    assert pictures['sample-0'].shape == (80, 96, 3)


def test_large_pictures_are_made_smaller_and_turned_upright():
    from tools.web.pictures import Limits, decode

    picture, buffer = Image.new('RGB', (300, 100)), io.BytesIO()
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(buffer, 'JPEG', exif=exif)
    assert decode(buffer.getvalue(), Limits(side=150)).shape == (150, 50, 3)


def exported(path, **settings):
    """A small file of which one stitch crosses and no anchor alone is the costlier one."""
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    from tests.test_runtime.onnx_files import NAMES, metadata, write

    return write(path, metadata(NAMES[:2], **settings))


def test_an_exported_file_is_shown_too(tmp_path):
    with serving(arguments(exported(tmp_path / 'all.onnx'))) as address:
        held = upload(address, picture_bytes())[1]['id']
        (sweep,) = data_of(address)['sweeps']
        assert [one['name'] for one in sweep['stitches']] == ['S2', 'S1-L2']
        assert sweep['stitches'][0]['ms'] is None
        answer = json.loads(ask(f'{address}/api/prediction?picture={held}&stitch=S1-L2')[1])
        assert answer['stitch'] == 'S1-L2' and answer['image'].startswith('data:image/jpeg')


def test_a_file_that_knows_its_anchors_has_routes_even_without_them_and_budgets_in_ms(tmp_path):
    path = exported(tmp_path / 'all.onnx', anchors=(('S', 2), ('L', 4)))
    with serving(arguments(path, '--measure')) as address:
        (sweep,) = data_of(address)['sweeps']
        assert sweep['routes']['S1-L2'] == [[0, 0, 1], [1, 2, 4]]
        assert [anchor['label'] for anchor in sweep['anchors']] == ['S', 'L']
        assert all(one['ms'] > 0 for one in sweep['stitches'])


def test_a_file_from_before_anchors_were_kept_is_shown_without_routes(tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    from tests.test_runtime.onnx_files import NAMES, metadata, write

    content = json.loads(metadata(NAMES[:2]).to_json())
    del content['anchors']
    write(tmp_path / 'old.onnx', metadata(NAMES[:2]), json.dumps(content))
    with serving(arguments(tmp_path / 'old.onnx')) as address:
        assert data_of(address)['sweeps'][0]['anchors'] == []


def test_a_server_of_this_machine_answers_to_the_address_that_it_listens_at():
    from tools.web_demo import names_for

    assert '127.0.0.2' in names_for('127.0.0.2') and 'localhost' in names_for('127.0.0.2')
    assert names_for('0.0.0.0') == ['*']


@pytest.mark.parametrize(('given', 'text'), [
    (['none.onnx'], 'There is no file none.onnx.'),
    (['a', 'b', 'c'], 'Give CONFIG and CKPT, one .onnx or .xml file'),
    (['x.onnx', '--results', 'r'], '--results go with CONFIG CKPT'),
    (['x.onnx', '--samples', 'nowhere'], 'There is no sample nowhere.'),
    (['x.onnx', '--port', '70000'], '--port 70000 is not possible'),
    (['c', 'w', '--measure', '--latency', 'l'], '--measure stands in place of --latency'),
    (['x.onnx', '--max-megabytes', '0'], '--max-megabytes must be above 0.'),
    (['x.onnx', '--host', '203.0.113.7'], 'Cannot listen at 203.0.113.7:0'),
])  # fmt: skip
def test_what_cannot_be_served_is_said_in_one_line(given, text, capsys):
    from tools.web_demo import main

    port = [] if '--port' in given else ['--port', '0']
    assert main([*given, *port]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'web_demo: error: {text}') and error.count('\n') == 1


def test_a_port_that_is_taken_is_said(capsys):
    from tools.web_demo import listen, main

    with listen('127.0.0.1', 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(['x.onnx', '--port', port]) == 2
    assert f'Cannot listen at 127.0.0.1:{port}' in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_says_its_address_and_ends_when_it_is_told(trained):
    command = [sys.executable, '-u', ROOT / 'tools/web_demo.py', trained.config,
               trained.checkpoint, '--port', '0']  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    try:
        address = re.match(r'http://127\.0\.0\.1:\d+', process.stdout.readline())[0]
        for _ in range(50):
            try:
                assert ask(address)[0] == 200
                break
            except urllib.error.URLError:
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope='module')
def browser():
    if CHROMIUM is None:
        pytest.skip('needs chromium or google-chrome')
    with Browser() as found:
        yield found


READY = 'sides.left.result && sides.right.result && !sides.left.busy && !sides.right.busy'


def opened(browser, address, **settings):
    browser.requests.clear()
    browser.errors.clear()
    browser.open(address + '/', **settings)
    browser.wait(READY)
    return browser


def slide(browser, side, share):
    browser.run(f"""(() => {{ const slider = sides.{side}.slider;
      slider.value = {1000 * share}; slider.dispatchEvent(new Event('input')); }})()""")


def tag(browser, side):
    return browser.run(f'get("tag-{side}").textContent')


@needs_browser
def test_the_slider_changes_the_stitch_its_prediction_its_mark_and_its_route(
    browser, address, trained
):
    from mmsnnet.results.chooser import chooser_of_results

    opened(browser, address)
    chooser = chooser_of_results(trained.results)
    costs = [one.cost('gflops') for one in chooser.candidates]
    before = browser.run('get("image-right").src')
    chosen = set()
    for share in (0, 0.3, 0.6, 1):
        slide(browser, 'right', share)
        browser.wait(READY)
        budget = min(costs) + share * (max(costs) - min(costs))
        name = chooser.within(gflops=budget * (1 + 1e-9)).name
        assert tag(browser, 'right') == name
        assert browser.run('sides.right.result.stitch') == name
        marked = browser.run('document.querySelector(".mark.at-right").dataset.name')
        assert marked == name
        segments = trained.costs.space[name].route.segments
        ran = browser.run('document.querySelectorAll("#route-right .ran").length')
        assert ran == sum(map(len, segments))
        chosen.add(name)
    assert len(chosen) > 1
    slide(browser, 'right', 0)
    browser.wait(READY)
    assert browser.run('get("image-right").src') != before
    assert re.search(r'measured\s[\d.]+\sms', browser.run('sides.right.box.textContent'))
    assert not browser.errors


@needs_browser
def test_a_click_on_a_stitch_of_the_plot_shows_it(browser, address):
    opened(browser, address)
    place = browser.run("""(() => { get('plot').scrollIntoView();
      const box = document.querySelector('[data-name="L4-S1"]').getBoundingClientRect();
      return [box.left + box.width / 2, box.top + box.height / 2]; })()""")
    browser.drag(place, place)
    browser.wait(READY)
    assert tag(browser, 'right') == 'L4-S1'
    assert browser.run('sides.right.result.stitch') == 'L4-S1'


@needs_browser
def test_an_upload_is_predicted_and_what_is_no_picture_is_refused(browser, address, tmp_path):
    opened(browser, address)
    (tmp_path / 'mine.png').write_bytes(picture_bytes(88))
    (tmp_path / 'no.png').write_bytes(b'no picture')
    browser.choose_file('#file', tmp_path / 'mine.png')
    browser.wait('!picture.startsWith("sample") && ' + READY)
    browser.wait('get("image-left").naturalHeight === 88')
    browser.choose_file('#file', tmp_path / 'no.png')
    said = browser.wait('get("error").textContent')
    assert said == 'This file is no picture; PNG, JPEG, WEBP, BMP are taken.'
    assert browser.run('get("image-left").naturalHeight') == 88


@needs_browser
def test_a_prediction_that_fails_is_said_and_leaves_no_older_picture(browser, address):
    opened(browser, address)
    browser.run('picture = "gone"; ask(sides.left)')
    said = browser.wait('get("error").textContent')
    assert said == 'This picture is no longer held; upload it again.'
    assert browser.run('get("image-left").hasAttribute("src")') is False
    slide(browser, 'right', 0.5)
    browser.run('show("sample-0")')
    browser.wait(READY + ' && get("error").textContent === ""')
    assert browser.run('get("image-left").hasAttribute("src")') is True


@needs_browser
def test_a_budget_in_ms_is_kept_by_what_was_measured(browser, trained):
    given = [trained.config, trained.checkpoint, '--results', trained.results, '--measure']
    with serving(arguments(*given)) as address:
        browser.open(address + '/')
        browser.run('get("axis").value = "ms"; get("axis").dispatchEvent(new Event("change"))')
        slide(browser, 'left', 0.5)
        kept, budget = browser.run('[sides.left.stitch.ms, budgetOf(sides.left)]')
        assert 0 < kept <= budget * (1 + 1e-9)
        assert browser.run('within(budgetOf(sides.left)).name') == tag(browser, 'left')


@needs_browser
def test_the_divide_is_dragged(browser, address):
    opened(browser, address)
    left, top, width = browser.run("""(() => { scrollTo(0, 0);
      const box = get('compare').getBoundingClientRect();
      return [box.left, box.top, box.width]; })()""")
    browser.drag((left + width / 2, top + 60), (left + width / 4, top + 60))
    assert browser.run('parseFloat(get("line").style.left)') == pytest.approx(25, abs=1)
    assert '25' in browser.run('get("image-right").style.clipPath')


@needs_browser
def test_nothing_is_asked_of_any_other_machine(browser, address):
    opened(browser, address)
    slide(browser, 'left', 0.5)
    browser.wait(READY)
    assert len(browser.requests) >= 6  # the page, two samples, three predictions
    assert all(one.startswith(address + '/') for one in browser.requests)
    assert not browser.errors


@needs_browser
@pytest.mark.parametrize(('width', 'dark'), [(390, False), (390, True), (1200, True)])
def test_narrow_screens_and_the_dark_are_served(browser, address, width, dark):
    opened(browser, address, width=width, dark=dark)
    assert browser.run('document.documentElement.scrollWidth') <= width
    page = browser.run('getComputedStyle(document.body).backgroundColor')
    assert (int(re.search(r'\d+', page)[0]) < 64) == dark
    folder = os.environ.get('MMSNNET_SCREENSHOTS')
    if folder:
        browser.screenshot(Path(folder) / f'web-{width}-{"dark" if dark else "light"}.png')
