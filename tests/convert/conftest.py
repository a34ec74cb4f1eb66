"""Tests of Keras files use Keras itself, under the same rules as tests/reference."""

from tests.reference.conftest import _keras_rules  # noqa: F401
