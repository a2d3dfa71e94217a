"""How sure results are, as users see it."""

from __future__ import annotations

import io
import re

import pytest

from mmsnnet.evaluation.report.pareto_plot import draw_sweeps
from mmsnnet.evaluation.report.pareto_report import print_table, summarise, write_report
from mmsnnet.results.certainty import Certainty, StitchCertainty, write_certainty
from mmsnnet.results.chooser import chooser_of_records
from tests.browser import CHROMIUM, Browser
from tests.results_folder import record, write_results
from tools.choose_stitch import main as choose_stitch


def certainty(better, **settings):
    names = ('S3', 'S1-L4', 'L6')
    stitches = {name: StitchCertainty(0.0, 1.0, 0.5, None, None) for name in names}
    settings = {**dict(metric='mIoU', rule='greater'), **settings}
    return Certainty(confidence=0.95, resamples=10, seed=0, images=4, stitches=stitches,
                     better=better, **settings)  # fmt: skip


#: The middle one is surely better than the first, and hardly worse than the last.
BETTER = ((0.5, 0.0, 0.0), (1.0, 0.5, 0.4), (1.0, 0.6, 0.5))


def uncertain_chooser(**settings):
    rows = [record('S3', 1, 10.0), record('S1-L4', 2, 20.0), record('L6', 3, 21.0)]
    return chooser_of_records(rows, 'mIoU', certainty=certainty(BETTER, **settings))


def test_cheaper_stitches_that_cannot_be_told_apart_are_named():
    chooser = uncertain_chooser()
    assert [one.name for one in chooser.not_told_apart(chooser['L6'])] == ['S1-L4']
    assert chooser.not_told_apart(chooser['S1-L4']) == []  # that L6 may be as bad is no help


def test_a_certainty_of_another_metric_or_rule_says_nothing():
    for settings in (dict(metric='mAcc'), dict(rule='less')):
        chooser = uncertain_chooser(**settings)
        assert chooser.certainty is None
        assert chooser.not_told_apart(chooser['L6']) == []


def sure_records():
    rows = [record('S3', 1, 10.0), record('S1-L4', 2, 20.0, 1), record('L2-S2', 3, 19.9, 2)]
    stitches = {
        'S3': StitchCertainty(9.0, 11.0, 1.0, None, None),
        'S1-L4': StitchCertainty(18.0, 22.0, 0.9, 1.0, 1.0),
        'L2-S2': StitchCertainty(18.1, 21.9, 0.4, 0.4, 1.0),
    }
    better = ((0.5, 0, 0), (1, 0.5, 0.6), (1, 0.4, 0.5))
    return rows, Certainty('mIoU', 'greater', 0.95, 1000, 0, 50, stitches, better)


def test_a_certainty_is_in_the_summary_the_table_and_the_page(tmp_path):
    rows, certainty = sure_records()
    summary = summarise(rows, 'mIoU', certainty=certainty)
    assert summary['certainty'] == dict(confidence=0.95, resamples=1000, seed=0, images=50)
    assert [row['interval'] for row in summary['front']] == [[9.0, 11.0], [18.0, 22.0]]
    assert [row['name'] for row in summary['uncertain']] == ['L2-S2']
    table = io.StringIO()
    print_table(rows, 'mIoU', file=table, certainty=certainty)
    (line,) = (line for line in table.getvalue().splitlines() if ' S1-L4 ' in line)
    assert re.search(r' 18\.0+ to 22\.0+ ', line)
    assert line.replace('|', ' ').split()[-3:] == ['0.90', '1.00', '1.00']
    paths = write_report(rows, 'mIoU', tmp_path, certainty=certainty)
    assert '"interval": [18.0, 22.0]' in paths['html'].read_text()


def test_whiskers_are_those_of_the_front_and_points_fade_with_its_probability():
    rows, certainty = sure_records()
    chooser = chooser_of_records(rows, 'mIoU', certainty=certainty)
    axes = draw_sweeps({'s': chooser}).axes[0]
    (whiskers,) = (c for c in axes.collections if c.get_label() == '95% interval')
    found = sorted(segment[:, 1].tolist() for segment in whiskers.get_segments())
    assert found == [[9.0, 11.0], [18.0, 22.0]]
    solid = {c.get_label()[:3]: c.get_facecolor() for c in axes.collections}
    assert solid['S-L'][0][3] > solid['L-S'][0][3]


def test_the_legend_shows_the_colours_of_families_however_pale_their_points():
    rows, certainty = sure_records()
    rows.append(record('L4-S1', 4, 19.0, 3))  # without a certainty: a second pale one of its family
    axes = draw_sweeps({'s': chooser_of_records(rows, 'mIoU', certainty=certainty)}).axes[0]
    legend = axes.get_legend()
    alphas = {
        text.get_text()[:3]: one.get_facecolor()[0][3]
        for text, one in zip(legend.get_texts(), legend.legend_handles)
        if text.get_text()[1] == '-'
    }
    assert alphas['S-L'] >= 0.75 and alphas['L-S'] >= 0.75


WHISKERS = """
(() => {
  const plot = document.getElementById('plot'), box = plot.getBoundingClientRect();
  return Array.from(document.querySelectorAll('[data-whisker]')).map(path => {
    const ends = path.getBoundingClientRect(), bars = path.getAttribute('d').split('h6').length - 1;
    return [path.dataset.whisker, bars, ends.top > box.top && ends.bottom < box.bottom];
  }).sort();
})()
"""


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_the_page_has_room_for_the_whiskers_of_front_and_anchors_and_says_what_they_are(tmp_path):
    rows, certainty = sure_records()
    page = write_report(rows, 'mIoU', tmp_path, certainty=certainty)['html']
    with Browser() as browser:
        browser.open(page.resolve().as_uri())
        assert browser.run(WHISKERS) == [['S1-L4', 2, True], ['S3', 2, True]]
        hint = browser.run("document.getElementById('certainty').textContent")
        assert hint.startswith('lines: 95 % intervals; the paler')
        assert '95 % interval' in browser.run("document.getElementById('facts').textContent")
        assert browser.errors == []


def test_the_tool_says_what_cannot_be_told_apart(tmp_path, capsys):
    rows = [record('S3', 1, 10.0), record('S1-L4', 2, 20.0, 1), record('L6', 3, 21.0, 2)]
    folder = write_results(tmp_path / 'out', rows, dict(metric='mIoU'))
    write_certainty(folder, certainty(BETTER))
    assert choose_stitch([str(folder), '--gflops', '4', '--format', 'name']) == 0
    captured = capsys.readouterr()
    assert captured.out == 'L6\n'
    assert captured.err == (
        'On these 4 images L6 cannot be told apart at 95% from S1-L4 (2 GFLOPs, 20), which cost no '
        'more.\n'
    )
    assert choose_stitch([str(folder), '--gflops', '2', '--format', 'name']) == 0
    assert capsys.readouterr().err == ''
