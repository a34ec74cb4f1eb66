"""Wherever a preparation is killed, the same command makes the same data from what is left."""

import pytest

from convjax.data.idx.sources import Mirror
from tests.data.idx.test_pipeline import check, prepare
from tests.helpers.faults import Snapshots


def crash_preparation(tmp_path, tiny, prepared, *, every):
    """Prepares from the state of the disk before each `every`-th file operation; returns the number of states."""
    place = tmp_path / "undisturbed"
    place.mkdir(exist_ok=True)
    with Snapshots(place, tmp_path / "crashed", every=every) as snapshots:
        expected = prepared(place)
    check(tiny, expected)
    crashed = sorted((tmp_path / "crashed").iterdir(), key=lambda copy: int(copy.name))
    for copy in crashed:
        decoded = prepared(copy)
        check(tiny, decoded)
        assert decoded.fingerprint == expected.fingerprint
        # The copy is complete now: it needs no source.
        check(tiny, prepare(tiny, copy, sources=[]))
    print(f"{len(crashed)} crashes at {snapshots.count} file operations of preparing data")
    return len(crashed)


def from_files(tiny, tmp_path):
    tiny.put(tmp_path / "undisturbed")
    return lambda place: prepare(tiny, place)


def from_a_mirror(tiny, server):
    mirror = server.mirror(tiny)
    return lambda place: prepare(tiny, place, sources=[Mirror(mirror, True)])


def test_preparation_that_crashes_is_made_good(tiny, tmp_path):
    assert crash_preparation(tmp_path, tiny, from_files(tiny, tmp_path), every=11) >= 3


@pytest.mark.slow
def test_preparation_that_crashes_at_any_file_operation_is_made_good(tiny, tmp_path):
    assert crash_preparation(tmp_path, tiny, from_files(tiny, tmp_path), every=1) >= 30


def test_a_download_that_crashes_is_made_good(tiny, tmp_path, server):
    assert crash_preparation(tmp_path, tiny, from_a_mirror(tiny, server), every=11) >= 3
