"""Saving and restoring the global random generators."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from mmsnnet.engine.rng_state import (
    capture_rng_state,
    preserved_rng,
    restore_rng_state,
    seeded_rng,
)


def draw():
    """Numbers of each global generator, gaussian ones too, which two of them keep in stock."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),  # noqa: NPY002
        np.random.randn(1).tolist(),  # noqa: NPY002
        torch.rand(3).tolist(),
        torch.randn(1).tolist(),
    )


@pytest.fixture(autouse=True)
def _leave_generators_alone():
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(torch_)


def test_a_restored_state_draws_the_same_numbers_again():
    draw()
    state = capture_rng_state()
    first = draw()
    assert draw() != first
    restore_rng_state(state)
    assert draw() == first


def test_a_half_used_pair_of_gaussians_is_part_of_the_state():
    np.random.randn(1)  # noqa: NPY002 - draws two, keeps one
    random.gauss(0, 1)
    state = capture_rng_state()
    first = draw()
    restore_rng_state(state)
    assert draw() == first


def test_capturing_draws_nothing():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = draw()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    capture_rng_state()
    assert draw() == expected


def test_a_state_survives_a_file_that_is_loaded_with_weights_only():
    file = io.BytesIO()
    torch.save(capture_rng_state(), file)
    first = draw()
    file.seek(0)
    restore_rng_state(torch.load(file, weights_only=True))
    assert draw() == first


def test_seeding_is_the_usual_seeding_of_each_generator():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = draw()
    with seeded_rng(5):
        assert draw() == expected


def test_a_seed_beyond_32_bits_is_accepted():
    with seeded_rng(2**40 + 3):
        first = draw()
    with seeded_rng(2**40 + 3):
        assert draw() == first


@pytest.mark.parametrize('context', [preserved_rng, lambda: seeded_rng(3)])
def test_a_with_block_leaves_no_trace_even_after_an_error(context):
    state = capture_rng_state()
    expected = draw()
    restore_rng_state(state)
    with pytest.raises(ZeroDivisionError), context():
        assert draw()[0] / 0
    assert draw() == expected
