"""The chapter run against values recorded once.

These numbers change only when a change to convjax means to change every run's numbers: a new random stream, another
order of sums. Then the digest's version rises too (`convjax/config.py`), the changelog says so, and
`python -m tests.golden.chapter` records the new values. Anything else that turns this red is a fault.
"""

import json

import pytest

from tests.golden import chapter

GOLDEN = json.loads(chapter.FILE.read_text())
WHEN = "see the docstring of tests/golden/test_chapter.py for when a golden value may change"


def test_random_streams_and_their_draws_are_those_of_every_earlier_run():
    found = json.loads(json.dumps(chapter.exact()))
    for name, value in GOLDEN["exact"].items():
        assert found[name] == value, f"{name} changed; {WHEN}"


def test_first_step():
    found = chapter.step()
    assert found["loss"] == pytest.approx(GOLDEN["step"]["loss"], rel=1e-5), WHEN
    assert found["gradient norms"] == pytest.approx(GOLDEN["step"]["gradient norms"], rel=1e-4), WHEN


def test_accuracy_after_three_short_epochs():
    # Another CPU rounds otherwise, and 189 steps amplify that: seeds differ by 0.005, machines by less.
    found = chapter.run()
    assert found["accuracy"] == pytest.approx(GOLDEN["run"]["accuracy"], abs=0.01), WHEN
    assert found["loss"] == pytest.approx(GOLDEN["run"]["loss"], abs=0.03), WHEN
