"""What the commands share: their parser, overrides of a config, progress, and how they end.

An error is one line on the error stream, ``NAME: error: what is wrong``, and an exit code that is
not 0. With MMSNNET_TRACEBACK=1 in the environment the traceback is shown as well.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Callable, NoReturn, TextIO

TOOLS = Path(__file__).resolve().parent
#: Variable of the environment that shows tracebacks.
TRACEBACK = 'MMSNNET_TRACEBACK'
#: Exit codes of an error and of an interruption, the latter as shells count it.
FAILED, INTERRUPTED = 2, 130
#: Most characters of an error; messages of torch about a state dict have hundreds of lines.
LONGEST_ERROR = 1500
#: Seconds between lines of progress where there is no terminal, and between drawings of a bar.
LINE_SECONDS, BAR_SECONDS = 10.0, 0.1

Main = Callable[..., int]


class Parser(argparse.ArgumentParser):
    """A parser that says errors in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(FAILED, f'{self.prog}: error: {message}\n')


class ConfigOptions(argparse.Action):
    """``--cfg-options KEY=VALUE ...`` as MMEngine reads it, into a dict; errors are one line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Merge the overrides into those given before.

        Raises:
            argparse.ArgumentError: If one is no KEY=VALUE, or its value cannot be read.
        """
        from mmengine import DictAction

        read = DictAction(self.option_strings, self.dest, nargs='+')
        for text in values:
            if not text.partition('=')[1] or not text.partition('=')[0].strip():
                raise argparse.ArgumentError(
                    self, f'{text!r} is not KEY=VALUE, such as model.backbone.img_size=512'
                )
            try:
                read(parser, namespace, [text], option_string)
            except Exception as error:  # asserts, and whatever else its reader meets
                raise argparse.ArgumentError(
                    self, f'the value of {text!r} cannot be read: {line_of(error)}'
                ) from error


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, a dict of overrides or None."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='overrides of the config',
    )


def is_explained(error: BaseException) -> bool:
    """Whether an error was written for the user: raised by our own code, or about a file."""
    if isinstance(error, (OSError, ImportError)):
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    frame = last.tb_frame
    ours = frame.f_globals.get('__name__', '').startswith('mmsnnet.')
    return ours or TOOLS in Path(frame.f_code.co_filename).resolve().parents


def line_of(error: BaseException) -> str:
    """What an error says, in one line; one of foreign code with its type."""
    text = str(error.args[0] if len(error.args) == 1 else error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    line = ' '.join(text.split())
    if len(line) > LONGEST_ERROR:
        line = f'{line[:LONGEST_ERROR]} ...'
    if line and is_explained(error):
        return line
    return f'{type(error).__name__}: {line}'.removesuffix(': ')


def fail(name: str, error: BaseException) -> int:
    """Say in one line what is wrong; returns the exit code."""
    hint = '' if is_explained(error) else f' ({TRACEBACK}=1 shows where)'
    if os.environ.get(TRACEBACK, '0') != '0':
        traceback.print_exception(type(error), error, error.__traceback__)
        hint = ''
    sys.stderr.write(f'{name}: error: {line_of(error)}{hint}\n')
    return FAILED


def command(name: str) -> Callable[[Main], Main]:
    """Decorator of a ``main(argv)`` that returns an exit code: errors become one line.

    Args:
        name: What the line begins with.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except KeyboardInterrupt:
                sys.stderr.write(f'{name}: interrupted\n')
                return INTERRUPTED
            except Exception as error:  # whatever a config, a checkpoint or a file can do wrong
                return fail(name, error)

        return run

    return decorate


@contextmanager
def output() -> Iterator[TextIO]:
    """Standard output, for results; a reader that has seen enough, such as head, is no error."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def lines_at_once() -> Iterator[Callable[[str], None]]:
    """A function that puts a line of results out as soon as it is known.

    It goes on to standard output while :func:`libraries_quiet` keeps others from it. A reader that
    has seen enough does not end the work.
    """
    stream, open_still = sys.stdout, True

    def report(line: str) -> None:
        nonlocal open_still
        if not open_still:
            return
        try:
            stream.write(f'{line}\n')
            stream.flush()
        except BrokenPipeError:
            open_still = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    yield report


def say(name: str, text: str) -> None:
    """Put a line of progress on the error stream at once."""
    sys.stderr.write(f'[{name}] {text}\n')
    sys.stderr.flush()


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Keep what libraries and configs print out of the output, and drop their warnings."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@contextmanager
def progress(what: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """Bar on a terminal, elsewhere a line in ten seconds.

    There is no thread that draws the bar, so that processes can be forked meanwhile.

    Args:
        what: What is counted, such as 'rooms'.
        stream: Where to; the error stream by default.

    Yields:
        The function to call with (done, total).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    stream = stream or sys.stderr
    console = Console(file=stream)
    last = float('-inf')

    def due(done: int, total: int, seconds: float) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds and done < total:
            return False
        last = now
        return True

    if not console.is_terminal:

        def line(done: int, total: int) -> None:
            if due(done, total, LINE_SECONDS):
                stream.write(f'{what} {done}/{total}\n')
                stream.flush()

        yield line
        return
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task(what, total=None)

        def draw(done: int, total: int) -> None:
            refresh = due(done, total, BAR_SECONDS)
            bar.update(task, completed=done, total=total, refresh=refresh)

        yield draw
