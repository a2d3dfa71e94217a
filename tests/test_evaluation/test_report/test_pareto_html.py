"""The page of a sweep: what it holds, and what a browser makes of it."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess

import pytest

from mmsnnet.evaluation.report.pareto_html import page_data, to_html
from mmsnnet.results.chooser import chooser_of_records
from mmsnnet.results.pareto import Point, pareto_front
from tests.builders import tiny_backbone
from tests.results_folder import write_latency
from tests.test_evaluation.test_report.published_ade20k import published_records

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def backbone():
    return tiny_backbone()


def make_records(backbone, seed=0):
    rng = random.Random(seed)
    return [
        dict(
            id=stitch.id, name=stitch.name, family=stitch.family,
            flops=backbone.costs[stitch].flops, params=backbone.costs[stitch].params,
            metrics=dict(mIoU=rng.uniform(40, 50), rmse=rng.uniform(0, 1)),
        )
        for stitch in backbone.space
    ]  # fmt: skip


def embedded(html):
    """Data of a page, as a browser reads them."""
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_holds_every_stitch_with_its_costs_metrics_and_route(backbone, tmp_path):
    records = make_records(backbone)
    rows = {record['name']: (i + 1.0, i + 2.0) for i, record in enumerate(records)}
    latency = write_latency(tmp_path / 'l.json', rows)
    data = page_data({'sweep': chooser_of_records(records, 'mIoU', 'greater', latency)})
    (sweep,) = data['sweeps']
    for record, shown in zip(records, sweep['stitches']):
        assert shown == dict(
            name=record['name'], family=record['family'], gflops=record['flops'] / 1e9,
            params=record['params'] / 1e6, ms=rows[record['name']][0],
            mb=rows[record['name']][1], metrics=record['metrics'],
        )  # fmt: skip
    for stitch in backbone.space:
        segments = [[s.anchor, s.start, s.stop] for s in stitch.route.segments]
        assert sweep['routes'][stitch.name] == segments
    assert [anchor['label'] for anchor in sweep['anchors']] == ['S', 'L']
    assert sweep['anchors'][0]['positions'] == list(range(0, 13, 2))
    assert sweep['anchors'][1]['positions'] == list(range(13))


def test_directions_follow_the_sweep_and_the_names_of_errors(backbone):
    chooser = chooser_of_records(make_records(backbone), 'mIoU', 'less')
    data = page_data({'a': chooser}, 'A title', 'params')
    assert data['rules'] == dict(mIoU='less', rmse='less')
    assert (data['metric'], data['title'], data['axis']) == ('mIoU', 'A title', 'params')


def test_without_the_anchors_there_are_no_routes(backbone):
    chooser = chooser_of_records(make_records(backbone)[1:], 'mIoU')
    assert page_data({'a': chooser})['sweeps'][0]['routes'] == {}


def test_the_page_needs_nothing_but_itself(backbone):
    html = to_html({'a': chooser_of_records(make_records(backbone), 'mIoU')})
    urls = set(re.findall(r'(?:https?:)?//[\w.]+', html)) - {'http://www.w3.org'}
    assert not urls
    assert not re.search(r'<(link|img|iframe)|\bsrc=|@import|url\(|fetch\(|import\(', html)


def test_names_cannot_end_the_script_and_missing_values_are_null(backbone):
    records = make_records(backbone)
    records[0]['metrics'] = {'</script><b>': 1.0, 'mIoU': math.nan}
    html = to_html({'</script>': chooser_of_records(records, 'mIoU')}, '<i>')
    data = embedded(html)
    assert data['title'] == '<i>' and data['sweeps'][0]['name'] == '</script>'
    assert data['sweeps'][0]['stitches'][0]['metrics'] == {'</script><b>': 1.0, 'mIoU': None}


@pytest.mark.parametrize(('rule', 'axis'), [('greater', 'gflops'), ('less', 'params')])
def test_the_page_opens_with_the_knee_of_the_front(backbone, rule, axis):
    chooser = chooser_of_records(make_records(backbone), 'mIoU', rule)
    assert page_data({'a': chooser}, axis=axis)['knee'] == chooser.knee(axis).name


def test_without_a_value_of_the_metric_there_is_no_knee(backbone):
    records = make_records(backbone)
    for record in records:
        record['metrics']['mIoU'] = math.nan
    assert page_data({'a': chooser_of_records(records, 'mIoU')})['knee'] is None


def test_costs_are_labelled_as_those_of_the_whole_model(backbone):
    labels = page_data({'a': chooser_of_records(make_records(backbone), 'mIoU')})['labels']
    assert labels['gflops'] == 'GFLOPs of the whole model'
    assert labels['params'] == 'M parameters of the whole model'


def test_metrics_are_shown_without_noise_of_single_precision(backbone):
    records = make_records(backbone)
    records[0]['metrics']['mIoU'] = 18.719999313354492
    data = page_data({'a': chooser_of_records(records, 'mIoU')})
    assert data['sweeps'][0]['stitches'][0]['metrics']['mIoU'] == 18.72


def rendered(html, path, address='', script='', width=1280, settings=()):
    """Elements of the page as a browser has built them, after a script of the test."""
    path.write_text(html.replace('</body>', f'<script>{script}</script></body>'), encoding='utf-8')
    command = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom', *settings]
    command += [f'--window-size={width},900', f'file://{path}{address}']
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return run.stdout


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason='the page is drawn by a browser: needs chromium or google-chrome'
)


def page_of(backbone, *seeds):
    return to_html(
        {f's{i}': chooser_of_records(make_records(backbone, i), 'mIoU') for i in seeds}
    )


@needs_browser
def test_a_browser_draws_the_stitches_the_front_and_the_route_of_the_address(backbone, tmp_path):
    records = make_records(backbone)
    sweeps = {'sweep': chooser_of_records(records, 'mIoU')}
    dom = rendered(to_html(sweeps), tmp_path / 'pareto.html', '#S2-L6-S1')
    assert set(re.findall('data-name="(.*?)"', dom)) == {record['name'] for record in records}
    points = [Point(r['name'], r['flops'], r['metrics']['mIoU']) for r in records]
    front = pareto_front(points)
    line = re.search('<polyline points="(.*?)"', dom)[1]
    assert len(line.split()) == len(front)
    assert f'{len(front)} of {len(records)} stitches are on the front' in dom
    segments = backbone.space['S2-L6-S1'].route.segments
    assert dom.count('class="ran"') == sum(map(len, segments))
    assert dom.count('class="idle"') == 6 + 12 - sum(map(len, segments))
    assert dom.count('class="crossing"') == 2
    assert '<h2>S2-L6-S1</h2>' in dom


@needs_browser
def test_a_browser_draws_a_front_for_each_sweep(backbone, tmp_path):
    dom = rendered(page_of(backbone, 0, 1, 2), tmp_path / 'pareto.html')
    assert dom.count('<polyline') == 3
    assert dom.count('data-name="S6"') == 3


@needs_browser
def test_a_browser_opens_with_the_knee_and_leaves_the_address_alone(backbone, tmp_path):
    script = 'document.body.dataset.hash = location.hash'
    dom = rendered(page_of(backbone, 0), tmp_path / 'pareto.html', script=script)
    knee = chooser_of_records(make_records(backbone), 'mIoU').knee().name
    assert f'<h2>{knee}</h2>' in dom and 'data-hash=""' in dom


CLICK = """
const mark = [...document.querySelectorAll('[data-name="L2-S5"]')].pop();
const box = mark.getBoundingClientRect();
const clientX = box.left + box.width / 2, clientY = box.top + box.height / 2;
mark.dispatchEvent(new MouseEvent('click', {clientX, clientY, bubbles: true}));
document.body.dataset.hash = location.hash;
"""


@needs_browser
@pytest.mark.parametrize(
    ('seeds', 'address', 'heading'),
    [([0], '#L2-S5', 'L2-S5'), ([0, 1], '#L2-S5@s1', 'L2-S5 (s1)')],
)
def test_the_address_follows_a_click(backbone, tmp_path, seeds, address, heading):
    page, path = page_of(backbone, *seeds), tmp_path / 'pareto.html'
    dom = rendered(page, path, script=CLICK)
    assert f'data-hash="{address}"' in dom and f'<h2>{heading}</h2>' in dom
    assert f'<h2>{heading}</h2>' in rendered(page, path, address)


MEASURE = """
const texts = [...document.querySelectorAll('#plot .name')].map(t => t.getBoundingClientRect());
const overlap = (a, b) =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const size = parseFloat(getComputedStyle(document.querySelector('#plot text')).fontSize)
  * get('plot').clientWidth / get('plot').viewBox.baseVal.width;
Object.assign(document.body.dataset, {
  beyond: document.documentElement.scrollWidth - innerWidth, window: innerWidth, size,
  names: texts.length, page: getComputedStyle(document.body).backgroundColor,
  overlaps: texts.filter((t, i) => texts.slice(0, i).some(u => overlap(t, u))).length,
});
"""


@needs_browser
@pytest.mark.parametrize(('width', 'names'), [(1280, 13), (390, 3)])
def test_134_stitches_are_legible_on_wide_and_narrow_screens(tmp_path, width, names):
    page = to_html({'ADE20K': chooser_of_records(published_records(), 'mIoU')})
    # A headless window may not be made as narrow as a phone; a frame can.
    path = tmp_path / 'pareto.html'
    path.write_text(page.replace('</body>', f'<script>{MEASURE}</script></body>'), 'utf-8')
    frame = f'<body><iframe src="pareto.html" width="{width}" height="900"></iframe></body>'
    script = """onload = () => { document.body.innerHTML = Object.entries(
      frames[0].document.body.dataset).map(e => e.join('=')).join(';'); };"""
    dom = rendered(frame, tmp_path / 'frame.html', script=script, width=1400,
                   settings=['--allow-file-access-from-files'])  # fmt: skip
    seen = dict(re.findall(r'(\w+)=([-\w., ()]+)', dom))
    assert int(seen['window']) == width and int(seen['beyond']) <= 0
    assert float(seen['size']) >= 11
    assert (seen['names'], seen['overlaps']) == (str(names), '0')


@needs_browser
@pytest.mark.parametrize(('setting', 'dark'), [(1, False), (0, True)])
def test_the_page_follows_the_preferred_colours(backbone, tmp_path, setting, dark):
    settings = [f'--blink-settings=preferredColorScheme={setting}']
    dom = rendered(page_of(backbone, 0), tmp_path / 'x.html', script=MEASURE, settings=settings)
    red = int(re.search(r'data-page="rgb\((\d+)', dom)[1])
    assert (red < 64) == dark
