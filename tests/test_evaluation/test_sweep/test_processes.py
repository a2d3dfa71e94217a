"""Two real processes that share work, fail, and are killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from mmsnnet.evaluation.sweep.processes import Deal, broadcast, failing_together, gather
from tests.toy_segmentation import child_environment

CHILD = """
import datetime, json, os, signal, sys, time
from torch import distributed
from mmsnnet.evaluation.sweep import processes
from mmsnnet.evaluation.sweep.processes import Deal, broadcast, failing_together, gather

# The timeout of the default group is shorter than what the processes wait for each other.
distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=1))
rank, told = distributed.get_rank(), {}
told['first'] = broadcast('of the first' if rank == 0 else None)
time.sleep(2.5 * rank)
told['all'] = gather(rank)

with failing_together(), Deal(30) as deal:
    mine = []
    for number in deal:
        mine.append(number)
        time.sleep(0.02 + 0.2 * rank)
told['dealt'] = gather(mine)

began, numbers = time.monotonic(), 0
try:
    with failing_together(), Deal(10000) as deal:
        for number in deal:
            numbers += 1
            time.sleep(0.01)
            if rank == 1 and numbers == 5:
                raise TypeError('a broken picture')
except Exception as error:
    told['failed'] = [type(error).__name__, str(error), numbers, time.monotonic() - began]

processes.BEAT, processes.SILENCE, began = 0.1, 2.0, time.monotonic()
try:
    with Deal(10**9) as deal:
        for number in deal:
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)
except ConnectionError as error:
    told['lost at work'] = [str(error), time.monotonic() - began]
began = time.monotonic()
try:
    gather(None)
except ConnectionError as error:
    told['lost while waiting'] = [str(error), time.monotonic() - began]
try:
    with failing_together():
        raise ValueError('of my own')
except ValueError as error:
    told['own error'] = str(error)
sys.stdout.write(json.dumps(told))
"""


@pytest.fixture(scope='module')
def survivor():
    """What the first of two processes tells; the second one was killed."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    pair = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', CHILD],
            env=child_environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    (output, errors), _ = (process.communicate(timeout=200) for process in pair)
    assert [process.returncode for process in pair] == [0, -signal.SIGKILL], errors
    return json.loads(output)


def test_processes_wait_longer_than_their_launcher_set_and_tell_each_other(survivor):
    assert survivor['first'] == 'of the first'
    assert survivor['all'] == [0, 1]


def test_work_is_dealt_out_once_and_the_faster_process_gets_more(survivor):
    fast, slow = survivor['dealt']
    assert sorted(fast + slow) == list(range(30))
    assert fast == sorted(fast) and slow == sorted(slow)
    assert len(fast) > 2 * len(slow) > 0


def test_where_one_process_fails_the_other_takes_no_more_work(survivor):
    kind, message, numbers, seconds = survivor['failed']
    assert (kind, message) == ('ValueError', 'a broken picture')
    assert numbers < 1000 and seconds < 20


@pytest.mark.parametrize('where', ['lost at work', 'lost while waiting'])
def test_a_process_that_was_killed_is_one_line_in_bounded_time(survivor, where):
    message, seconds = survivor[where]
    assert message.startswith('Another process of this sweep has ended before its time (')
    assert message.endswith('the same command goes on from there.')
    assert '\n' not in message
    assert seconds < 20


def test_an_error_of_ones_own_is_not_hidden_by_the_loss_of_the_other(survivor):
    assert survivor['own error'] == 'of my own'


def test_alone_everything_is_of_one_process():
    assert broadcast('x') == 'x'
    assert gather('x') == ['x']
    with Deal(3) as deal:
        assert list(deal) == [0, 1, 2]
    with pytest.raises(KeyError), failing_together():
        raise KeyError('x')
