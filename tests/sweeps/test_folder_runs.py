"""Runs on a folder of images: what they report and record, and what happens when the folder changes."""

import numpy as np
import pytest
from PIL import Image

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps import run as sweeps_run
from convjax.sweeps.options import Options, SweepOptions
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.runner import data_notes, run_sweep
from convjax.sweeps.store import Run
from convjax.sweeps.sweep import Sweep
from tests.helpers.sweeps import Recorder


class Listener(Reporter):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 100, (12, 10, 3), np.uint8) + np.uint8(155 * label)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index:02}.png")
    (tmp_path / "photos" / "dark" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def config(folder):
    return RunConfig(
        dataset=f"folder:{folder}", image_size="8", skip_corrupt=True, model="dense", dense_units="4", epochs=2,
        batch_size=8, learning_rate=0.01,
    )  # fmt: skip


def test_a_run_tells_and_records_what_it_ran_on(folder, config, tmp_path):
    options, listener = Options(workdir=str(tmp_path / "runs"), streaming="yes"), Listener()
    with pytest.raises(UserError, match=r"1 file cannot be used: dark/notes.txt is no JPEG, PNG or WebP image"):
        execute([config.replace(skip_corrupt=False)], "study", options, listener)
    [result] = execute([config], "study", options, listener)
    assert result["test_examples"] == 8
    assert f"{config.dataset}: left out 1 file: dark/notes.txt is no JPEG, PNG or WebP image" in listener.lines
    written = Run.of(options.workdir, "study", config).config()
    assert written["data"]["left_out"] == 1
    assert written["data"]["left_out_files"] == [{"name": "dark/notes.txt", "reason": "is no JPEG, PNG or WebP image"}]
    assert written["data"]["image_shape"] == [8, 8, 3]
    assert written["streaming"] is True
    assert written["skip_corrupt"] is True

    # The same images with all on the device, after the bad file is gone: the same numbers, for they are the same data.
    (folder / "dark" / "notes.txt").unlink()
    sweeps_run.load_dataset.cache_clear()
    other = Options(workdir=str(tmp_path / "other"), streaming="no")
    [again] = execute([config], "study", other, listener)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_a_result_of_other_content_is_not_taken_for_the_folders(folder, config, tmp_path):
    options = Options(workdir=str(tmp_path / "runs"))
    sweep = Sweep("study", ((config,),), options)
    assert any("dark 16" in line and line.startswith(config.dataset) for line in data_notes(sweep))
    run_sweep(sweep, SweepOptions(), Recorder())
    run = Run.of(options.workdir, "study", config)
    first = run.result()
    (folder / "light" / "00.png").unlink()
    sweeps_run.load_dataset.cache_clear()
    with pytest.raises(UserError, match=r"has changed since .* --noresume runs it again"):
        execute([config], "study", options, Reporter())
    with pytest.raises(UserError, match="has changed since"):
        run_sweep(sweep, SweepOptions(), Recorder())
    assert run.result() == first
    [again] = execute([config], "study", Options(workdir=options.workdir, resume=False), Reporter())
    assert again["dataset_fingerprint"] != first["dataset_fingerprint"]
