"""Values of metrics as files show them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from mmsnnet.evaluation.report.quantities import decimals, shown_value


@pytest.mark.parametrize('places', [0, 2, 4])
def test_values_rounded_in_single_precision_lose_its_noise(places):
    rng = random.Random(places)
    for _ in range(300):
        value = round(rng.uniform(0, 100), places)
        assert shown_value(float(np.float32(value))) == value


def test_what_is_shown_is_the_same_number_in_single_precision():
    values = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    values = [*values, np.float32(1e-42), np.float32(3.4e38), np.float32(0)]
    assert all(np.float32(shown_value(float(value))) == value for value in values)


def test_values_of_double_precision_keep_every_digit():
    rng = random.Random(1)
    values = [*(rng.uniform(-100, 100) for _ in range(300)), 1e300, -1e-300, 1 / 3]
    assert [shown_value(value) for value in values] == values


@pytest.mark.parametrize('value', [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_value(value):
    assert shown_value(value) is None


@pytest.mark.parametrize(
    ('values', 'expected'),
    [([363.2, 33.5], 1), ([0.0153, 0.0676], 5), ([51.35], 2), ([12345.0], 0), ([0.0], 0), ([], 0),
     ([math.nan, 0.5], 4)],
)  # fmt: skip
def test_decimals_show_four_digits_of_the_greatest(values, expected):
    assert decimals(values) == expected
