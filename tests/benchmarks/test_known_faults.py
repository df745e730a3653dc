"""The second ground truth is whole: enough models, each with a source, a twin and a checked label."""

from __future__ import annotations

import json
import re

import known_faults
import numpy as np
import pytest
from known_faults import FAULTS, HEALTHY, LABELS, ends, half_way, label

from keras_initaudit.diagnosis.causes import RULES

BUILDS = {name: build for name, build, _ in known_faults.starts()}


@pytest.fixture(scope="module")
def reference():
    return json.loads(LABELS.read_text())


def test_there_are_forty_of_each_and_their_names_differ():
    assert len(FAULTS) >= 40
    assert len(HEALTHY) >= 40
    names = [name for name, _, _ in known_faults.starts()]
    assert len(names) == len(set(names)) == 2 * len(FAULTS) + len(HEALTHY)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_a_source_and_rules_that_name_it(fault):
    assert re.search(r"\w\.(com|org|io|ai)/\S", fault.source) or re.search(r"\d{4}, .*section", fault.source)
    assert len(fault.source.split()) > 6  # it says what was seen there
    assert fault.named
    assert fault.named <= {rule.slug for rule in RULES}


def test_every_start_has_a_label_and_every_repair_learns(reference):
    assert set(reference["starts"]) == {name for name, _, _ in known_faults.starts()}
    assert set(reference["labels"]) == {fault.name for fault in FAULTS}
    assert set(reference["labels"].values()) <= {"stuck", "late", "learns"}
    for name, start in reference["starts"].items():
        assert len(start["half"]) == len(known_faults.SEEDS)
        if not name.startswith("fault/"):
            assert known_faults.comes_there(start["half"]) is not None, name


def test_the_labels_are_what_the_curves_say(reference):
    starts = reference["starts"]
    for name, said in reference["labels"].items():
        assert said == label(starts[f"fault/{name}"]["half"], starts[f"twin/{name}"]["half"])


@pytest.mark.parametrize("name", list(BUILDS)[::12])
def test_a_start_builds_and_its_ends_are_those_of_its_label(name, reference):
    model, _, y = known_faults.built(BUILDS[name], 1)
    assert model.compiled
    best, end = ends(model.loss, y)
    assert best > end
    assert [best, end] == pytest.approx(reference["starts"][name]["ends"], rel=0.01, abs=1e-6)


@pytest.mark.slow
def test_every_start_builds():
    for build in BUILDS.values():
        model, _, _ = known_faults.built(build, 1)
        assert model.compiled
        assert model.built


def test_the_ends_of_a_loss():
    classes = np.array([0, 0, 1, 2], "int32")
    assert ends("sparse_categorical_crossentropy", classes) == pytest.approx((1.5 * np.log(2), 0.0))
    numbers = np.array([[0.0], [1.0], [5.0]], "float32")
    assert ends("mse", numbers) == pytest.approx((14 / 3, 0.0), rel=1e-5)
    assert ends("mae", numbers) == pytest.approx((5 / 3, 0.0), rel=1e-5)  # from the median, not from the mean
    assert ends(["mse", "mae"], [numbers, numbers])[0] == pytest.approx(14 / 3 + 5 / 3, rel=1e-5)
    shares = np.array([[0.0], [0.0], [0.0], [1.0]], "float32")
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert ends("binary_crossentropy", shares) == pytest.approx((entropy, 0.0), abs=1e-5)


def test_half_of_the_way_takes_five_losses():
    falling = [1.0] * 10 + [0.4] * 10
    assert half_way(falling, 1.0, 0.0) == 15  # after the fifth low one: 4 of them and one high one make 0.52
    assert half_way([1.0] * 20, 1.0, 0.0) is None
    assert half_way([float("nan")] * 20, 1.0, 0.0) is None


def test_a_label_needs_most_seeds():
    assert label([None, None, 20], [10, 10, 10]) == "stuck"
    assert label([None, 20, 20], [10, 10, 10]) == "late"
    assert label([19, 19, 19], [10, 10, 10]) == "learns"
    assert label([10, 10, 10], [5, 6, 6]) == "learns"  # five more are asked for
    assert label([20, 20, 20], [10, None, None]) == "twin does not learn"


def test_the_table_counts_what_is_found_named_and_bad(reference):
    labels = reference["labels"]
    right = {f"fault/{fault.name}": known_faults.Said("bad", fault.named) for fault in FAULTS}
    wrong = {f"fault/{fault.name}": known_faults.Said("warning", frozenset({"nothing"})) for fault in FAULTS}
    stuck = sum(label == "stuck" for label in labels.values())
    all_of_them = f"{len(FAULTS)} of {len(FAULTS)}"
    assert known_faults.hits(right, labels)[:3] == [all_of_them, all_of_them, f"{stuck} of {stuck}"]
    assert known_faults.hits(wrong, labels)[:3] == [all_of_them, f"0 of {len(FAULTS)}", f"0 of {stuck}"]
    quiet = {
        "twin/a": known_faults.Said("healthy", frozenset()),
        "twin/b": known_faults.Said("warning", frozenset({"input-scale"})),
    }
    assert known_faults.false_alarms(quiet) == ["0 of 0", "0 of 0", "0 of 2", "1 of 2"]
