# ruff: noqa: RUF001 - tables are written with the minus sign
import math

import pytest

from convjax.analysis.metrics import metric_named, short_number


@pytest.mark.parametrize(
    ("name", "value", "signed", "text"),
    [
        ("test_accuracy", 0.9917, False, "99.17"),
        ("test_accuracy", 1.0, False, "100.00"),
        ("validation_accuracy", 0.0012, True, "+0.12"),
        ("test_accuracy", -0.0012, True, "−0.12"),
        # A difference that rounds to zero keeps its side: an interval from +0.00 leaves out 0.
        ("test_accuracy", 0.00002, True, "+0.00"),
        ("test_accuracy", -0.00002, True, "−0.00"),
        ("test_accuracy", 0.0, True, "0.00"),
        ("test_loss", 0.02854, False, "0.0285"),
        ("seconds", 1234.56, False, "1,234.6"),
        ("seconds_train", 0.04, False, "0.0"),
        ("parameters", 93_322, False, "93,322"),
        ("parameters", -1500, True, "−1,500"),
        ("test_accuracy", math.nan, False, "—"),
    ],
)
def test_written_value(name, value, signed, text):
    assert metric_named(name).format(value, signed=signed) == text


@pytest.mark.parametrize(
    ("name", "heading", "lower_is_better"),
    [
        ("test_accuracy", "test accuracy (%)", False),
        ("test_loss", "test loss", True),
        ("seconds", "seconds", True),
        ("seconds_train", "seconds train", True),
        ("parameters", "parameters", None),
        ("flops", "flops", None),
        ("something_new", "something new", None),
    ],
)
def test_names_and_directions(name, heading, lower_is_better):
    metric = metric_named(name)
    assert metric.heading == heading
    assert metric.lower_is_better is lower_is_better


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (784, "784"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (93_322, "93.3 k"),
        (999_499, "999 k"),
        (999_700, "1.00 M"),
        (5_230_000, "5.23 M"),
        (99_960_000, "100 M"),
        (1.2e9, "1.20 G"),
        (3.4e13, "34.0 T"),
        (math.nan, "—"),
    ],
)
def test_short_numbers_have_three_digits(value, text):
    assert short_number(value) == text
