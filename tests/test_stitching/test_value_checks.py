"""Checks of single values."""

from __future__ import annotations

import math

import pytest

from mmsnnet.stitching.value_checks import check_flag, check_integer, check_number


def test_values_of_the_right_type_are_returned():
    assert check_flag('a', False) is False
    assert check_integer('a', -3) == -3
    assert check_number('a', 2) == 2 and check_number('a', -0.5) == -0.5


@pytest.mark.parametrize('value', [0, 1, 'yes', None])
def test_only_true_and_false_are_flags(value):
    with pytest.raises(TypeError, match=f'a must be True or False, got {value!r}'):
        check_flag('a', value)


@pytest.mark.parametrize('value', [True, 1.0, '1', None, [1]])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match='a must be an integer, got'):
        check_integer('a', value)


@pytest.mark.parametrize('value', [True, '1', None, 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match='a must be a number, got'):
        check_number('a', value)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(value):
    with pytest.raises(ValueError, match=f'a must be a finite number, got {value}'):
        check_number('a', value)
