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


def rendered(html, path, stitch):
    """Elements of the page as a browser has built them."""
    path.write_text(html, encoding='utf-8')
    command = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom']
    run = subprocess.run(
        [*command, f'file://{path}#{stitch}'], capture_output=True, text=True, timeout=120
    )
    return run.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='needs a Chromium')
def test_a_browser_draws_the_stitches_the_front_and_the_chosen_route(backbone, tmp_path):
    records = make_records(backbone)
    sweeps = {'sweep': chooser_of_records(records, 'mIoU')}
    dom = rendered(to_html(sweeps), tmp_path / 'pareto.html', 'S2-L6-S1')
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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='needs a Chromium')
def test_a_browser_draws_a_front_for_each_sweep(backbone, tmp_path):
    sweeps = {f's{i}': chooser_of_records(make_records(backbone, i), 'mIoU') for i in range(3)}
    dom = rendered(to_html(sweeps), tmp_path / 'pareto.html', '')
    assert dom.count('<polyline') == 3
    assert dom.count('data-name="S6"') == 3
