"""Two processes that exchange the gradients of what ran, against torch's own wrapper."""

from __future__ import annotations

import pytest
import torch

from tests.distributed_gradients import SCENARIOS, found_by_two_processes


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What both processes found."""
    return found_by_two_processes(tmp_path_factory.mktemp('gradients') / 'found')


@pytest.mark.parametrize('name', SCENARIOS)
def test_gradients_are_bit_equal_to_those_of_torchs_wrapper(found, name):
    """And exist for the same parameters, in every step of both processes."""
    for theirs, ours, _ in (process[name] for process in found):
        assert len(theirs) == len(ours) >= 2
        for expected, gradients in zip(theirs, ours):
            assert expected.keys() == gradients.keys()
            assert all(torch.equal(expected[key], gradients[key]) for key in expected)
            assert any(value.any() for value in expected.values())


def test_gradients_are_equal_in_both_processes(found):
    for one, two in zip(found[0]['different'][1], found[1]['different'][1]):
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_process_gets_the_gradient_of_what_only_the_other_ran(found):
    second = found[0]['one_runs_more'][1][1]
    assert second['sometimes.weight'].any() and 'never.weight' not in second


@pytest.mark.parametrize('name', SCENARIOS)
def test_processes_of_different_stitches_are_told_once_that_it_takes_longer(found, name):
    lines = [line for line in found[0][name][2] if 'different stitches' in line]
    assert len(lines) == ('different' in name)


def test_no_more_is_sent_than_what_ran(found):
    """Once the first step has shown which layers outside of the backbone are left out."""
    for process in found:
        steps = process['traffic']
        assert all(sent <= 1.05 * active for _, sent, active in steps[1:])
        assert min(sent for _, sent, _ in steps) < 0.5 * max(sent for _, sent, _ in steps)


def test_gradients_are_sent_while_the_backward_pass_runs(found):
    for process in found:
        during, after = process['overlap']
        assert during >= 0.6 * after and after > 5


def test_weights_whose_gradient_grows_after_it_was_sent_are_averaged_as_a_whole(found):
    """As under reentrant checkpointing, and in a second pass through one forward.

    There the mean of a mean and of new gradients is the mean of all.
    """
    for process in found:
        first, second, own_first, own_second = process['reentrant']
        torch.testing.assert_close(first, own_first)
        torch.testing.assert_close(second, own_second)
    assert torch.equal(found[0]['reentrant'][1], found[1]['reentrant'][1])


def test_buffers_are_broadcast_on_request_as_torch_does(found):
    """When wrapped, and before the first forward after one whose gradients are averaged."""
    assert [note.tolist() for note in found[1]['buffers']] == [[0, 0], [5, 5], [6, 6]]


def test_weights_in_shards_get_the_gradients_of_whole_ones(found):
    """And blocks that a stitch does not run get none, in either way."""
    if not found[0]['sharded']:
        pytest.skip(f'torch {torch.__version__} has no fully_shard')
    for process in found:
        for expected, gradients in zip(*process['sharded']):
            assert expected.keys() == gradients.keys()
            for name, value in expected.items():
                torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-6)
    one, other = (found[0]['sharded'][1][step].keys() for step in (0, 1))
    assert one - other and other - one


def test_what_cannot_be_is_refused_in_one_line(found):
    static, unknown, capacity, other = found[0]['refused']
    assert static.startswith('ValueError: static_graph=True does not go with')
    assert unknown.startswith("TypeError: StitchDistributedDataParallel has no argument 'gradient")
    assert capacity == 'ValueError: bucket_cap_mb must be a positive number of MiB, got 0.'
    assert other.startswith('ValueError: Parameters differ in name, shape or type')
    assert not any('\n' in line for line in found[0]['refused'])
