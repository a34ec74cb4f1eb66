"""The rules for hostile input (helpers/limits.py) notice what they are for."""

import pytest

from convjax.errors import UserError
from tests.helpers import limits
from tests.helpers.limits import read_or_refused


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "arena" / "inside").mkdir(parents=True)
    return tmp_path / "arena" / "inside"


def raises(error):
    def read():
        raise error

    return read


def test_a_result_and_a_refusal_pass(folder):
    assert read_or_refused(lambda: 3, folder) == 3
    assert read_or_refused(raises(UserError("no")), folder) is None


def test_other_errors_and_bad_messages_fail(folder):
    with pytest.raises(ZeroDivisionError):
        read_or_refused(lambda: 1 / 0, folder)
    with pytest.raises(AssertionError, match="5000 characters"):
        read_or_refused(raises(UserError("x" * 5000)), folder)
    with pytest.raises(AssertionError, match="without a word"):
        read_or_refused(raises(UserError(" ")), folder)


def test_a_hang_fails(folder, monkeypatch):
    def hang():
        while True:
            pass

    monkeypatch.setattr(limits, "SECONDS", 0.2)
    with pytest.raises(limits.Hang):
        read_or_refused(hang, folder)


def test_memory_beyond_the_limit_fails(folder, monkeypatch):
    assert limits.peak() > 1 << 20
    # A process that once took memory takes it again unnoticed, and that may be gigabytes: `peak` is made up here.
    taken = iter([1, limits.BYTES, 1, limits.BYTES + 2])
    monkeypatch.setattr(limits, "peak", lambda: next(taken))
    read_or_refused(lambda: None, folder)
    with pytest.raises(AssertionError, match="MiB"):
        read_or_refused(lambda: None, folder)


def test_a_file_outside_the_folder_fails(folder):
    with pytest.raises(AssertionError, match="outside its folder"):
        read_or_refused(lambda: (folder.parent / "escaped").write_bytes(b""), folder)
