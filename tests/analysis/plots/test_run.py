"""The pictures of one run: what they count, which images they show, and what becomes of unusual runs."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.analysis.plots import run as run_plots
from convjax.analysis.plots.run import (
    confusion_matrix,
    confusion_plot,
    most_confidently_wrong,
    save_run_plots,
    wrong_plot,
)
from convjax.config import RunConfig
from convjax.data import Dataset, Split
from convjax.errors import UserError
from convjax.sweeps import run as sweeps_run
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run

NAMES = ("cat", "dog", "a rather long class name")


def pictures(figure):
    """The images drawn, in the order of the sheet."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), *[st.lists(st.integers(0, n - 1), max_size=30)] * 2)))
def test_confusion_counts_by_hand(given):
    classes, first, second = given
    pairs = list(zip(first, second, strict=False))
    matrix = confusion_matrix([true for true, _ in pairs], [guess for _, guess in pairs], classes)
    for true in range(classes):
        for guess in range(classes):
            assert matrix[true, guess] == pairs.count((true, guess))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(2, 5)), elements=st.floats(-20, 20, width=32)),
    st.randoms(use_true_random=False),
)
def test_confidently_wrong_against_a_slow_softmax(logits, random):
    labels = [random.randrange(logits.shape[1]) for _ in logits]
    wrong = most_confidently_wrong(logits, labels)
    slow = []
    for index, (row, label) in enumerate(zip(logits.astype(np.float64), labels, strict=True)):
        guess = int(np.argmax(row))
        if guess != label:
            slow.append((float(np.exp(row[guess]) / np.exp(row).sum()), index, guess, label))
    assert sorted(wrong.indices) == sorted(index for _, index, _, _ in slow)
    probability = {index: value for value, index, _, _ in slow}
    np.testing.assert_allclose(wrong.probability, [probability[index] for index in wrong.indices], rtol=1e-9)
    assert all(np.diff(wrong.probability) <= 0)
    for index, guess, label in zip(wrong.indices, wrong.predicted, wrong.true, strict=True):
        assert (guess, label) == (np.argmax(logits[index]), labels[index])


def test_order_among_probabilities_that_round_to_one():
    logits = np.array([[0.0, 50.0], [0.0, 60.0], [0.0, 40.0]])
    wrong = most_confidently_wrong(logits, [0, 0, 0])
    assert wrong.probability.tolist()[:2] == [1.0, 1.0]
    assert wrong.indices.tolist() == [1, 0, 2]


class TestConfusionPlot:
    def test_counts_in_cells_and_shares_as_colors(self):
        matrix = np.array([[9, 1, 0], [0, 1200, 0], [0, 0, 0]])
        figure = confusion_plot(matrix, NAMES, "title")
        axes = figure.axes[0]
        assert sorted((text.get_position(), text.get_text()) for text in axes.texts) == [
            ((0, 0), "9"),
            ((1, 0), "1"),
            ((1, 1), "1,200"),
        ]
        shares = axes.images[0].get_array()
        np.testing.assert_allclose(shares[:2].filled(-1), [[0.9, 0.1, 0], [0, 1, 0]])
        assert shares.mask[2].all(), "a class without images has no shares"
        assert axes.get_xlabel() == "predicted class"
        assert axes.get_ylabel() == "true class"
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == ["cat", "dog", "a rather long cla\N{HORIZONTAL ELLIPSIS}"]

    @pytest.mark.parametrize("classes", [1, 2, 20, 21, 300])
    def test_any_number_of_classes(self, classes):
        names = [f"name {index}" for index in range(classes)]
        figure = confusion_plot(np.eye(classes, dtype=np.int64) * 3, names, "title", theme="dark")
        figure.draw_without_rendering()
        assert bool(figure.axes[0].texts) == (classes <= 20)
        assert len(figure.axes[0].get_yticklabels()) <= 40
        assert figure.get_figheight() < 12

    def test_names_that_cannot_be_written_are_numbers(self):
        figure = confusion_plot(np.eye(2, dtype=np.int64), ["\u304a", "ki"], "title")
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "ki"]


class TestSheet:
    @pytest.mark.parametrize("shape", [(28, 28, 1), (9, 30, 3), (30, 9, 2)])
    def test_the_most_confident_come_first(self, shape):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (100, *shape), dtype=np.uint8)
        logits, labels = generator.normal(size=(100, 3)), generator.integers(0, 3, 100)
        wrong = most_confidently_wrong(logits, labels)
        figure = wrong_plot(images, wrong, NAMES, 100, "run")
        shown = pictures(figure)
        assert len(shown) == 30
        for picture, index in zip(shown, wrong.indices, strict=False):
            np.testing.assert_array_equal(picture, images[index] if shape[-1] == 3 else images[index].mean(axis=-1))
        first = figure.axes[0]
        assert f"{100 * wrong.probability[0]:.2f} %" in first.get_title("center")
        assert NAMES[wrong.predicted[0]][:10] in first.get_title("center")
        assert NAMES[wrong.true[0]][:10] in first.texts[0].get_text()
        assert f"30 most confidently wrong of {len(wrong.indices)}" in figure.get_suptitle()

    def test_nothing_wrong(self):
        wrong = most_confidently_wrong(np.eye(3), [0, 1, 2])
        figure = wrong_plot(np.zeros((3, 4, 4, 1), np.uint8), wrong, NAMES, 3, "run")
        assert pictures(figure) == []
        assert "All 3 test images are classified correctly" in figure.texts[0].get_text()

    def test_only_one_wrong(self):
        wrong = most_confidently_wrong(np.eye(3), [0, 1, 1])
        figure = wrong_plot(np.zeros((3, 4, 4, 1), np.uint8), wrong, NAMES, 3, "run")
        assert len(pictures(figure)) == 1
        assert figure.get_suptitle().startswith("The only wrong image, among 3")

    def test_certainty_is_never_rounded_up(self):
        wrong = most_confidently_wrong(np.array([[0.0, 30.0]]), [0])
        figure = wrong_plot(np.zeros((1, 4, 4, 1), np.uint8), wrong, ("a", "b"), 1, "run")
        assert figure.axes[0].get_title("center") == "b  >99.99 %"


class TestRuns:
    """A small net trained on small noise, from its folder to its pictures."""

    CONFIG = RunConfig(dataset="noise", model="dense", dense_units="4", epochs=1, batch_size=20)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, tmp_path_factory):
        generator = np.random.default_rng(0)

        def split(count):
            images = generator.integers(0, 256, (count, 8, 6, 3), dtype=np.uint8)
            return Split(images, generator.integers(0, 3, count, dtype=np.int32))

        data = Dataset("noise", "0123456789abcdef", NAMES, split(40), split(10), split(50))
        folder = tmp_path_factory.mktemp("runs")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweeps_run, "load_dataset", lambda *arguments: data)
            execute([cls.CONFIG], "small", Options(workdir=str(folder)), Reporter())
        return folder, data

    @pytest.fixture
    def dataset(self, trained, monkeypatch):
        monkeypatch.setattr(sweeps_run, "load_dataset", lambda *arguments: trained[1])
        return trained[1]

    @pytest.fixture
    def run(self, trained, dataset, tmp_path):
        shutil.copytree(trained[0], tmp_path / "runs")
        return Run.of(tmp_path / "runs", "small", self.CONFIG)

    def test_three_files_that_agree_with_the_run(self, run):
        before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
        paths = save_run_plots(run, "")
        assert [path.name for path in paths] == ["learning_curves.png", "confusion_matrix.png", "confidently_wrong.png"]
        assert all(path.parent == run.path / "plots" for path in paths)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
        assert {path: path.stat().st_mtime_ns for path in before} == before, "the run itself is not touched"
        contents = [path.read_bytes() for path in paths]
        assert [path.read_bytes() for path in save_run_plots(run, "")] == contents

    def test_the_sheet_shows_what_the_run_got_wrong(self, run, monkeypatch):
        seen = {}
        original = run_plots.wrong_plot
        monkeypatch.setattr(run_plots, "wrong_plot", lambda *a, **k: seen.update(wrong=a[1]) or original(*a, **k))
        save_run_plots(run, "")
        predictions, labels = np.load(run.path / "predictions.npy"), np.load(run.path / "labels.npy")
        assert sorted(seen["wrong"].indices) == np.flatnonzero(predictions != labels).tolist()

    def test_a_run_that_diverged_has_no_sheet(self, run):
        result = run.result() | {"status": "diverged", "reason": "nan"}
        (run.path / "result.json").write_text(json.dumps(result))
        for name in ("metrics.jsonl", "SHA256SUMS"):
            (run.path / name).unlink()
        assert [path.name for path in save_run_plots(run, "")] == ["confusion_matrix.png"]

    def test_unfinished_damaged_and_other_data_are_refused(self, run, dataset, monkeypatch):
        other = Dataset("noise", "fedcba9876543210", NAMES, dataset.train, None, dataset.test)
        monkeypatch.setattr(sweeps_run, "load_dataset", lambda *arguments: other)
        with pytest.raises(UserError, match="fingerprint fedcba9876543210"):
            save_run_plots(run, "")
        (run.path / "labels.npy").write_bytes(b"short")
        with pytest.raises(UserError, match=r"labels\.npy is missing or damaged"):
            save_run_plots(run, "")
        (run.path / "result.json").unlink()
        with pytest.raises(UserError, match="not finished"):
            save_run_plots(run, "")
