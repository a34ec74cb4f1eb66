"""report.html: self-contained, escaped, the same for the same runs, and true to them."""

import html
import html.parser
import itertools
import json
import math
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from convjax.analysis.arms import group_runs
from convjax.analysis.comparisons import compare_arms, find_baselines
from convjax.analysis.report.answer import answer
from convjax.analysis.report.report import write_report
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps import Run, read_runs

VOID = {"meta", "br", "img", "hr", "wbr", "link", "input"}
HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=http://evil.example/x onerror=alert(2)>${}"
WORDS = {"question": "Does it matter?", "reading": "Read it so.", "commands": ["python -m experiments.kernel_size"]}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, ids, and the text that a reader sees; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.words, self.svgs = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "svg":
            self.svgs.append({"attributes": dict(attrs), "texts": {}})
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag in ("title", "desc") and self.svgs and "id" in attributes:
            self.svgs[-1]["texts"][attributes["id"]] = data
        if tag != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def result_of(config, accuracy, **more):
    return {
        "status": "done",
        "reason": "",
        "test_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "train_accuracy": accuracy,
        "parameters": 1000 * int(config.kernel_size[0]) ** 2,
        "flops": 50_000 * int(config.kernel_size[0]) ** 2,
        "dataset_fingerprint": "0123456789abcdef",
        "seconds": {"total": 40.0 + config.seed},
        **more,
    }


ENVIRONMENT = {
    "versions": {"python": "3.12.1", "jax": "0.10.2"},
    "backend": "cpu",
    "devices": ["cpu"],
    "cpus": 2,
    "host": "lab",
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "data": {"fingerprint": "0123456789abcdef", "train_examples": 60_000, "test_examples": 10_000},
}


@pytest.fixture
def store(tmp_path):
    """A function that adds a run to a store."""

    def add(accuracy, *, epochs=2, fail=None, environment=ENVIRONMENT, more=None, **fields):
        config = RunConfig(**fields)
        run = Run.of(tmp_path, "kernels", config)
        run.path.mkdir(parents=True)
        run.start(config, environment)
        for epoch in range(1, epochs + 1):
            value = (accuracy or 0.5) - 0.1 / epoch
            run.add_metrics({"epoch": epoch, "step": epoch, "train_loss": 1 - value, "train_accuracy": value})
        if fail is not None:
            run.fail(RuntimeError(fail), "traceback")
        elif accuracy is not None:
            run.finish(result_of(config, accuracy, **(more or {})), np.zeros(3), np.zeros(3))
            os.utime(run.path / "result.json", (1_700_000_000, 1_700_000_000))
        return run

    add.folder = tmp_path
    return add


@pytest.fixture
def kernels(store):
    """Three arms of three seeds: 3 is the baseline, 1 is worse, 4 is not told apart from it."""
    for seed, noise in enumerate((0.0, 0.001, -0.001)):
        store(0.953 + noise + 0.0003 * seed, kernel_size="1", seed=seed)
        store(0.982 + noise, kernel_size="3", seed=seed)
        store(0.9821 + noise * (-1) ** seed, kernel_size="4", seed=seed)
    return store


def page_of(frame, **more):
    with tempfile.TemporaryDirectory() as folder:
        text = write_report(Path(folder) / "report.html", frame, **{**WORDS, **more}).read_text(encoding="utf-8")
    return text, Page(text)


class TestPage:
    def test_holds_what_a_reader_needs(self, kernels):
        text, page = page_of(
            read_runs([kernels.folder]), baseline={"kernel_size": "3"}, title="kernel size", details="  loses\n    3x3"
        )
        for wanted in (
            "Kernel size",
            "Does it matter?",
            "Read it so.",
            "python -m experiments.kernel_size",
            "3 arms \N{MIDDLE DOT} 9 runs, 9 of them done \N{MIDDLE DOT} 2023-11-14",
            "shown to be worse: kernel_size=1",
            "no difference shown: kernel_size=4",
            "The arms also differ in parameters (1,000 to 16.0 k) and FLOPs (50.0 k to 800 k)",
            "image FLOPs",
            "95 % interval",
            "verdict",
            "python 3.12.1, jax 0.10.2",
            "lab, cpu, 2 CPUs",
            "0123456789ab",
            "60,000 train, 10,000 test images",
            "6 min",
        ):
            assert wanted in page.text, wanted
        assert "loses\n  3x3</code>" in text
        for seed in range(3):
            assert f"seed {seed}" in page.text
        for accuracy in ("95.30", "95.43", "95.26", "98.20", "98.30", "98.10"):
            assert accuracy in page.text
        assert "Runs that failed" not in page.text

    def test_loads_nothing(self, kernels):
        text, page = page_of(read_runs([kernels.folder]), baseline={"kernel_size": "3"})
        assert "http" not in text.replace("http-equiv", "")
        assert "@import" not in text
        assert not re.findall(r"url\((?!#)", text)
        assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert page.values("src") == []
        assert all(target.startswith("#") for target in page.values("href"))
        [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert len(text) < 300_000

    def test_figures_have_titles_and_descriptions(self, kernels):
        _, page = page_of(read_runs([kernels.folder]), baseline={"kernel_size": "3"})
        assert len(page.svgs) == 5
        for svg in page.svgs:
            assert svg["attributes"]["role"] == "img"
            title, description = (svg["texts"][name] for name in svg["attributes"]["aria-labeledby"].split())
            assert len(title) > 10
            assert len(description) > 30
        titles = [next(iter(svg["texts"].values())) for svg in page.svgs]
        assert titles == [
            "Test accuracy by kernel_size",
            "Accuracy by epoch for every kernel_size",
            "Loss by epoch for every kernel_size",
            "Test accuracy against parameters",
            "Test accuracy against FLOPs",
        ]
        assert "kernel_size=1: 95.33 %; kernel_size=3: 98.20 %" in page.text
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        referred = {target[1:] for target in page.values("href")}
        assert referred <= set(ids)

    def test_tables_scroll_in_boxes_that_have_names(self, kernels):
        text, page = page_of(read_runs([kernels.folder]), baseline={"kernel_size": "3"})
        boxes = [attributes for _, attributes in page.tags if attributes.get("role") == "region"]
        assert all(box["aria-label"] and box["tabindex"] == "0" and "scroll" in box["class"] for box in boxes)
        assert text.count("<table>") == len(boxes)
        assert all("scroll" in text[: place.start()].rsplit("<div", 1)[1] for place in re.finditer("<table>", text))
        assert [a["content"] for tag, a in page.tags if a.get("name") == "viewport"] == [
            "width=device-width, initial-scale=1"
        ]
        assert "prefers-color-scheme: dark" in text

    def test_a_grid_has_a_map(self, store):
        for kernel, padding, seed in itertools.product(("1", "3"), ("valid", "same"), range(2)):
            store(0.95 + 0.01 * int(kernel) + 0.001 * seed, kernel_size=kernel, padding=padding, seed=seed)
        _, page = page_of(read_runs([store.folder]))
        assert "Test accuracy by kernel_size and padding" in page.text
        assert "Brighter is higher" in page.text

    def test_same_runs_same_bytes(self, kernels, tmp_path):
        frame = read_runs([kernels.folder])
        words = {**WORDS, "baseline": {"kernel_size": "3"}}
        path = write_report(tmp_path / "out" / "report.html", frame, **words)
        first = path.read_bytes()
        shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
        assert write_report(path, shuffled, **words).read_bytes() == first
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


class TestHostileText:
    def test_is_text_wherever_it_comes_from(self, store):
        # A folder's name is the run's digest, so a hostile configuration must be an honest one.
        hostile = {**ENVIRONMENT, "host": HOSTILE, "versions": {HOSTILE: HOSTILE}, "git_revision": HOSTILE}
        for seed in range(2):
            store(0.9 + 0.01 * seed, dataset=HOSTILE, kernel_size="1", seed=seed, environment=hostile)
            store(0.95, dataset=HOSTILE, kernel_size="3", seed=seed, environment=hostile)
        store(None, dataset=HOSTILE, kernel_size="4", seed=0, environment=hostile, fail=HOSTILE)
        text, page = page_of(
            read_runs([store.folder]),
            baseline={"kernel_size": "3"},
            title=HOSTILE,
            question=HOSTILE,
            reading=HOSTILE,
            commands=[HOSTILE],
            details=HOSTILE,
        )
        assert not {tag for tag, _ in page.tags} & {"script", "img"}
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert page.values("src") == []
        assert "<script" not in text
        assert page.text.count("alert(1)") >= 10

    def test_a_hostile_arm_name(self, runs):
        frame = runs([({"kernel_size": "1"}, [0.9, 0.91]), ({"kernel_size": "3"}, [0.92, 0.93])])
        frame["experiment"] = ["</svg><script>alert(1)</script>", "</svg><script>alert(1)</script>", "$x_1$", "$x_1$"]
        text, page = page_of(frame, by=["kernel_size", "experiment"])
        assert "<script" not in text
        assert "</svg><script>alert(1)</script>" in page.text
        assert "$x_1$" in page.text


class TestUnusualRuns:
    def test_failed_diverged_and_unfinished_runs_are_shown(self, kernels):
        kernels(None, kernel_size="4", seed=7, fail="out of memory")
        kernels(None, kernel_size="1", seed=7)
        diverged = {"status": "diverged", "reason": "the loss was not finite at step 3", "test_loss": None}
        kernels(0.098, kernel_size="3", seed=7, epochs=1, more=diverged)
        (kernels.folder / "kernels" / "0123456789abcdef").mkdir()
        (kernels.folder / "kernels" / "0123456789abcdef" / "config.json").write_text("{")
        _, page = page_of(read_runs([kernels.folder]), baseline={"kernel_size": "3"})
        assert "Runs that failed, diverged or did not finish" in page.text
        for wanted in (
            "RuntimeError: out of memory",
            "unfinished",
            "not finished",
            "the loss was not finite at step 3",
            "9.80 \N{DAGGER}",
            "is damaged",
        ):
            assert wanted in page.text, wanted

    def test_no_result_at_all(self, store):
        store(None, kernel_size="1", fail="boom", epochs=0)
        _, page = page_of(read_runs([store.folder]))
        assert "No run has a result yet, so there is no answer." in page.text
        assert page.svgs == []
        assert "RuntimeError: boom" in page.text

    def test_run_folders_that_are_gone(self, runs):
        frame = runs([({"kernel_size": "1"}, [0.9, 0.91]), ({"kernel_size": "3"}, [0.92, 0.93])])
        _, page = page_of(frame)
        assert [next(iter(svg["texts"].values())) for svg in page.svgs] == ["Test accuracy by kernel_size"]

    def test_one_epoch_is_no_curve(self, store):
        for kernel, seed in itertools.product(("1", "3"), range(2)):
            store(0.95 + 0.01 * seed, kernel_size=kernel, seed=seed, epochs=1)
        _, page = page_of(read_runs([store.folder]))
        assert not any("by epoch" in next(iter(svg["texts"].values())) for svg in page.svgs)

    def test_many_failures_are_folded(self, kernels):
        for seed in range(10, 20):
            kernels(None, kernel_size="4", seed=seed, fail="x" * 1000, epochs=0)
        text, page = page_of(read_runs([kernels.folder]))
        assert "Show 10 runs" in page.text
        assert "x" * 301 not in text

    def test_another_metric(self, kernels):
        _, page = page_of(read_runs([kernels.folder]), metric="test_loss", baseline={"kernel_size": "3"})
        assert "Test loss by kernel_size" in page.text
        assert "shown to be worse: kernel_size=1" in page.text

    def test_refuses_what_tables_refuse(self, kernels):
        with pytest.raises(UserError, match="matches no arm"):
            page_of(read_runs([kernels.folder]), baseline={"kernel_size": "9"})
        with pytest.raises(UserError, match="no runs"):
            page_of(pd.DataFrame())

    def test_damaged_metrics_cost_only_their_curve(self, kernels):
        path = next((kernels.folder / "kernels").iterdir()) / "metrics.jsonl"
        path.write_text("{broken\n" + json.dumps({"epoch": 1}) + "\n")
        _, page = page_of(read_runs([kernels.folder]))
        assert len(page.svgs) == 5


def sentences(frame, baseline=None, **more):
    arms = group_runs(frame, **more)
    comparisons = compare_arms(arms, find_baselines(arms, baseline)) if baseline else []
    return answer(arms, comparisons, baseline)


class TestAnswer:
    def test_a_best_arm(self, runs):
        frame = runs([({"kernel_size": "1"}, [0.950, 0.952, 0.951]), ({"kernel_size": "3"}, [0.980, 0.983, 0.981])])
        first, second = sentences(frame, {"kernel_size": "1"})
        assert (
            first == "kernel_size=3 (mean test accuracy 98.13 % over 3 seeds) is shown to be better than the other arm."
        )
        assert second.startswith(
            "Compared with kernel_size=1 (mean test accuracy 95.10 % over 3 seeds), shown to be better: kernel_size=3 "
            "(+3.03 points, 95 % interval +2.89 to +3.18)"
        )

    def test_no_best_arm(self, runs):
        frame = runs(
            [({"kernel_size": k}, v) for k, v in (("1", [0.95, 0.97]), ("3", [0.96, 0.97]), ("4", [0.9, 0.97]))]
        )
        [first] = sentences(frame)
        assert first == (
            "No arm is shown to be the best. The highest mean is that of kernel_size=3 (mean test accuracy 96.50 % "
            "over 2 seeds), which is not shown to be better than kernel_size=1; kernel_size=4."
        )

    def test_never_says_more_than_the_comparison(self, runs):
        generator = np.random.default_rng(0)
        for _ in range(20):
            values = generator.normal(0.95, 0.01, (3, 3)) + generator.normal(0, 0.02, (3, 1))
            frame = runs([({"kernel_size": k}, list(v)) for k, v in zip(("1", "3", "4"), values, strict=True)])
            arms = group_runs(frame)
            comparisons = compare_arms(arms, find_baselines(arms, {"kernel_size": "3"}))
            said = answer(arms, comparisons, {"kernel_size": "3"})[1:]
            for arm, one in zip(arms.arms, comparisons, strict=True):
                shown = [
                    text for text in said if f"kernel_size={arm.key[0]} (+" in text or f"={arm.key[0]} (\u2212" in text
                ]
                if one.verdict in ("better", "worse"):
                    assert len(shown) == 1
                    assert f"shown to be {one.verdict}: " in shown[0]
                else:
                    assert shown == []

    def test_one_seed_says_nothing(self, runs):
        frame = runs([({"kernel_size": "1"}, [0.95]), ({"kernel_size": "3"}, [0.98])])
        first, second, third = sentences(frame, {"kernel_size": "1"})
        assert first.startswith("No arm is shown to be the best.")
        assert "nothing can be said (one seed: no interval): kernel_size=3" in second
        assert "run at least 5 seeds" in third

    def test_baselines_of_their_own(self, runs):
        frame = runs(
            [
                ({"kernel_size": kernel, "padding": padding}, [0.95 + shift, 0.952 + shift, 0.951 + shift + 0.0001])
                for padding, (kernel, shift) in itertools.product(("valid", "same"), (("1", 0.0), ("3", 0.02)))
            ]
        )
        said = sentences(frame, {"kernel_size": "3"})
        assert any(text.startswith("Compared with the arm of kernel_size=3 with the same padding") for text in said)

    def test_one_arm_no_arm_and_other_data(self, runs):
        one = runs([({"kernel_size": "1"}, [0.95, 0.96])])
        assert sentences(one) == [
            "Only one arm has results: model=convnet with mean test accuracy 95.50 % over 2 seeds."
        ]
        nothing = one.assign(status="failed", test_accuracy=math.nan)
        assert sentences(nothing) == ["No run has a result yet, so there is no answer."]
        both = pd.concat([one, runs([({"dataset": "kmnist"}, [0.9, 0.91])])])
        [first] = sentences(both, allow_mixed_data=True)
        assert "different data" in first
