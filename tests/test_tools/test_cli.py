"""What the commands share: overrides, errors in one line, progress."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import _cli
import pytest
from mmengine import DictAction

ROOT = Path(__file__).resolve().parents[2]
TOOLS_WITH_OPTIONS = {
    'list_stitches': ['c.py'],
    'measure_latency': ['c.py'],
    'test_all_stitches': ['c.py', 'w.pth'],
    'convert_snnetv2': ['in.pth', 'out.pth', '--config', 'c.py'],
}


def parsed(*options: str):
    parser = _cli.Parser(prog='tool')
    _cli.add_config_options(parser)
    return parser.parse_args(options).cfg_options


@pytest.mark.parametrize(
    'texts',
    [
        ['a.b=1', 'a.c=x'],
        ['a=[1,(2,3)]', 'b=True', 'c=None', 'd=1e-3'],
        ['a=b=c'],
        ['a="x,y"', 'b=x,y'],
    ],
)
def test_overrides_are_read_as_mmengine_reads_them(texts):
    theirs = argparse.ArgumentParser()
    theirs.add_argument('--cfg-options', nargs='+', action=DictAction)
    expected = theirs.parse_args(['--cfg-options', *texts]).cfg_options
    assert parsed('--cfg-options', *texts) == expected


def test_overrides_given_in_two_places_add_up():
    assert parsed('--cfg-options', 'a=1', '--cfg-options', 'b=2') == dict(a=1, b=2)


def test_without_overrides_there_are_none():
    assert parsed() is None


@pytest.mark.parametrize('tool', TOOLS_WITH_OPTIONS)
@pytest.mark.parametrize('text', ['nothing', '=3', ' =3', 'a=[1,(2'])
def test_an_override_that_cannot_be_read_is_one_line_in_every_tool(tool, text, capsys):
    main = importlib.import_module(f'tools.{tool}').main
    with pytest.raises(SystemExit) as end:
        main([*TOOLS_WITH_OPTIONS[tool], '--cfg-options', text])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f'{tool}: error: argument --cfg-options: ')
    assert repr(text) in error and error.count('\n') == 1


def code_and_error(capsys, raised):
    @_cli.command('tool')
    def main(argv=None):
        raise raised

    return main([]), capsys.readouterr().err


@pytest.mark.parametrize(
    ('raised', 'line'),
    [
        (FileNotFoundError(2, 'No such file or directory', 'x.py'), 'x.py: No such file or'),
        (ModuleNotFoundError("No module named 'abc'"), "No module named 'abc'"),
        (KeyError('what\n  is wrong'), 'KeyError: what is wrong (MMSNNET_TRACEBACK=1 shows where)'),
        (ZeroDivisionError(), 'ZeroDivisionError (MMSNNET_TRACEBACK=1 shows where)'),
        (RuntimeError('x ' * 9000), 'RuntimeError: x x'),
    ],
)
def test_an_error_is_one_line(capsys, raised, line):
    code, error = code_and_error(capsys, raised)
    assert code == 2
    assert error.startswith(f'tool: error: {line}')
    assert error.count('\n') == 1 and len(error) < 1700


def test_an_error_of_our_own_is_said_by_its_text_alone(capsys):
    from mmsnnet.stitching import check_image_size

    @_cli.command('tool')
    def main(argv=None):
        check_image_size((0, 0))

    assert main([]) == 2
    error = capsys.readouterr().err
    assert 'must be positive, got (0, 0)' in error
    assert 'ValueError' not in error and 'TRACEBACK' not in error


def test_the_traceback_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv('MMSNNET_TRACEBACK', '1')
    _, error = code_and_error(capsys, ZeroDivisionError('by nothing'))
    assert 'Traceback' in error and error.endswith('tool: error: ZeroDivisionError: by nothing\n')


def test_an_interruption_has_the_exit_code_of_shells(capsys):
    assert code_and_error(capsys, KeyboardInterrupt()) == (130, 'tool: interrupted\n')


def test_the_exit_code_of_a_command_is_passed_on():
    assert _cli.command('tool')(lambda argv=None: 1)([]) == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        'import _cli, sys\n'
        'with _cli.output() as out:\n'
        "    out.writelines(f'{number}\\n' for number in range(10**6))\n"
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT / 'tools')}
    with subprocess.Popen(
        [sys.executable, '-c', code], env=environment, stdout=-1, stderr=-1
    ) as run:
        assert run.stdout.readline() == b'0\n'
        run.stdout.close()
        assert run.stderr.read() == b''
    assert run.returncode == 0


def test_what_libraries_print_stays_out_of_the_output(capsys):
    with _cli.libraries_quiet():
        sys.stdout.write('noise\n')
    assert capsys.readouterr() == ('', 'noise\n')


def test_progress_without_a_terminal_is_the_first_and_the_last_line():
    stream = io.StringIO()
    with _cli.progress('rooms', stream) as report:
        for done in range(5):
            report(done, 4)
    assert stream.getvalue() == 'rooms 0/4\nrooms 4/4\n'


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    stream = io.StringIO()
    with _cli.progress('rooms', stream) as report:
        report(3, 4)
    assert '3/4' in stream.getvalue()


@pytest.mark.parametrize('tool', ['list_stitches', 'measure_latency', 'test_all_stitches'])
def test_a_config_that_is_not_there_is_one_line_in_every_tool(tool, capsys, tmp_path):
    main = importlib.import_module(f'tools.{tool}').main
    arguments = [str(tmp_path / 'no.py'), *TOOLS_WITH_OPTIONS[tool][1:]]
    arguments += ['--out', str(tmp_path / 'out')] if tool != 'list_stitches' else []
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'{tool}: error: There is no config {tmp_path}')
    assert not (tmp_path / 'out').exists()


def test_help_needs_neither_torch_nor_mmengine():
    code = (
        'import sys, list_stitches\n'
        'try:\n'
        "    list_stitches.main(['--help'])\n"
        'except SystemExit:\n'
        "    print(sorted({'torch', 'mmengine'} & sys.modules.keys()))\n"
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT / 'tools')}
    run = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == '[]'


def test_lines_of_results_go_out_at_once_while_libraries_are_kept_quiet(capsys):
    with _cli.lines_at_once() as report, _cli.libraries_quiet():
        sys.stdout.write('of a library')
        report('result')
        assert capsys.readouterr().out == 'result\n'


def test_a_reader_that_has_seen_enough_does_not_end_the_work(tmp_path):
    code = (
        'import _cli, sys\n'
        'with _cli.lines_at_once() as report:\n'
        '    sys.stdin.read()\n'
        '    report("one"), report("two")\n'
        'open(sys.argv[1], "w").close()\n'
    )
    job = subprocess.Popen(
        [sys.executable, '-c', code, tmp_path / 'done'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(ROOT / 'tools')),
    )  # fmt: skip
    job.stdout.close()
    job.stdin.close()
    assert job.wait() == 0 and job.stderr.read() == b''
    assert (tmp_path / 'done').exists()
