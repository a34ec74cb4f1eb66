"""Fixtures of made-up runs, see tests/helpers/frames.py."""

from tests.helpers.frames import row, runs

__all__ = ["row", "runs"]
