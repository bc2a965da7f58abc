"""The fixed test set, files of results, and comparisons out of them."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focus.errors import FocusError
from focus.eval.comparison import by_occluder, by_yaw, compare
from focus.eval.results import Result, append_results, read_results, write_results
from focus.eval.testset import SUBSETS, benchmark_faces, digest
from focus.face import MorphableModel
from focus.report.comparison import join_equal, yaw_figure


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", 4, 2, 3)


def test_the_digest_names_what_is_drawn(model: MorphableModel) -> None:
    digests = [digest(benchmark_faces(model, 32, subset, seed), 3) for subset in SUBSETS for seed in (0, 1)]
    assert len(set(digests)) == len(digests)
    assert digest(benchmark_faces(model, 32, "general"), 3) == digests[0]
    assert digest(benchmark_faces(model, 32, "general"), 2) != digests[0]
    assert digest(benchmark_faces(model, 48, "general"), 3) != digests[0]
    assert digest(benchmark_faces(model.truncated(3, 2, 2), 32, "general"), 3) != digests[0]


def test_subsets_show_what_they_are_called(model: MorphableModel) -> None:
    wide = benchmark_faces(model, 32, "large_pose")
    yaw = [abs(float(wide.parameters(i).rotation[0, 1].rad2deg())) for i in range(40)]
    assert np.mean([angle > 30 for angle in yaw]) > 0.3
    batch = benchmark_faces(model, 32, "skin_coloured").batch(0, 8, occluded=True)
    assert {kind for name in batch.occluder for kind in name.split("+")} <= {"hand", "skin_patch", "face_patch"}
    assert benchmark_faces(model, 32, "extreme_light").settings.extreme_light_fraction == 1


def test_an_unknown_subset_is_named(model: MorphableModel) -> None:
    with pytest.raises(FocusError, match=r"expected one of general, .*got 'sunny'"):
        benchmark_faces(model, 32, "sunny")
    with pytest.raises(FocusError, match="seed: expected a number"):
        benchmark_faces(model, 32, "general", -1)


def _result(method: str, f1: Any, *, seed: int = 0, **changes: Any) -> Result:
    count = len(f1)
    fields: dict[str, Any] = {
        "subset": "general",
        "version": 1,
        "digest": "abc",
        "commit": "0",
        "names": tuple(f"face-{i}" for i in range(count)),
        "occluded": tuple(i % 2 == 0 for i in range(count)),
        "occluder": tuple("hand" if i % 2 == 0 else "none" for i in range(count)),
        "yaw": tuple(float(10 * i - 15) for i in range(count)),
        "values": {"f1": tuple(float(value) for value in f1)},
    }
    return Result(method=method, seed=seed, **{**fields, **changes})


def test_files_grow_and_later_results_replace_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    first, second = _result("a", [0.1, 0.2]), _result("b", [0.3, 0.4])
    append_results(path, [first])
    append_results(path, [second, replace(first, seed=1)])
    assert read_results(path) == [first, second, replace(first, seed=1)]
    append_results(tmp_path / "other.jsonl", [first, replace(first, digest="def")])  # another test set: both stay
    assert len(read_results(tmp_path / "other.jsonl")) == 2
    again = replace(first, values={"f1": (0.5, 0.6)})
    append_results(path, [again])
    assert read_results(path) == [again, second, replace(first, seed=1)]


def test_damaged_files_are_named_and_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [_result("a", [0.1, 0.2])])
    whole = path.read_text()
    for text, message in (
        (whole + whole[:40], "line 2: no result"),
        ("{}\n", "line 1: no result"),
        ("[1]\n", "line 1: no result"),
        ("", "found none"),
        (whole.replace("0.1", "NaN"), "f1: expected 2 finite numbers"),
        (whole.replace('"f1"', '"f2"'), "unknown value 'f2'"),
        (
            whole.replace("face-1", "face-0").replace("[true, false]", "[true, true]"),
            "pictures of the same name: face-0",
        ),
        (whole.replace("[-15.0, -5.0]", "[1.0]"), "yaw: expected 2 entries, got 1"),
        (whole.replace("[-15.0, -5.0]", "[1.0, NaN]"), "yaw: expected finite degrees"),
        (whole.replace("[-15.0, -5.0]", "[1.0, null]"), "line 1: no result .*TypeError"),
        (whole.replace("0.1", "1" + "0" * 400), "line 1: no result .*OverflowError"),
        (whole.replace("[true, false]", '["false", "false"]'), "occluded: expected entries of type bool"),
        (whole.replace('"hand"', "null"), "occluder: expected entries of type str"),
        (whole.replace('"abc"', "3"), "expected texts as .*, got 'a', 'general', 3, "),
        (whole.replace('"seed": 0', '"seed": true'), "whole numbers as seed and version"),
        (
            json.dumps({**json.loads(whole), "names": [], "occluded": [], "occluder": [], "yaw": [], "values": {}}),
            "at least one picture",
        ),
        (whole.replace("0.1", "0.2"), "line 1: a: damaged .*checksum"),
        (whole.replace('"checksum"', '"checksun"'), "line 1: a: damaged .*checksum"),
    ):
        path.write_text(text)
        with pytest.raises(FocusError, match=message):
            append_results(path, [_result("b", [0.1, 0.3])])
        assert path.read_text() == text
    path.unlink()
    with pytest.raises(FocusError, match="no such file"):
        read_results(path)
    with pytest.raises(FocusError, match="finite"):
        append_results(path, [_result("a", [0.1, float("inf")])])
    assert not path.exists()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "results.jsonl", tmp_path / "file" / "deeper" / "results.jsonl"):
        with pytest.raises(FocusError, match="cannot hold results"):
            append_results(place, [_result("a", [0.1, 0.2])])


def test_lines_of_before_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [_result("a", [0.1, 0.2])])
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content) + "\n")
    assert read_results(path) == [_result("a", [0.1, 0.2])]
    path.write_text(json.dumps(content | {"more": 1}) + "\n")
    with pytest.raises(FocusError, match="unknown: more"):
        read_results(path)


def test_who_appends_waits_for_others(tmp_path: Path) -> None:
    path, first, second = tmp_path / "results.jsonl", _result("a", [0.1, 0.2]), _result("b", [0.3, 0.4])
    append = threading.Thread(target=append_results, args=(path, [second]))
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process that has read the file, and not yet written it
    append.start()
    append.join(0.3)
    assert append.is_alive()
    write_results(path, [first])
    os.close(handle)
    append.join()
    assert read_results(path) == [first, second]
    assert [file.name for file in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_result_on_an_older_test_set_does_not_stand_in_the_way() -> None:
    old = _result("a", [0.1, 0.2, 0.3, 0.4], digest="old")
    new = [_result(method, [0.5, 0.6, 0.7, 0.8], digest="new") for method in "ab"]
    (comparison,) = compare([old, *new])
    assert (comparison.digest, list(comparison.cells)) == ("new", ["a", "b"])
    assert comparison.notes == ("left out: a (seed 0) on another test set, digest old, 4 pictures",)
    assert comparison.as_dict()["notes"] == list(comparison.notes)
    # Two test sets with all methods: both are compared.
    both = compare([old, _result("b", [0.1, 0.2, 0.3, 0.4], digest="old"), *new])
    assert [(part.digest, part.notes) for part in both] == [("old", ()), ("new", ())]


def test_differences_of_other_seeds_are_named() -> None:
    runs = {(m, s): _result(m, [0.1 + s, 0.2, 0.3, 0.4 + s], seed=s) for m in "ab" for s in range(4)}
    (comparison,) = compare([runs["a", 0], runs["a", 1], runs["b", 1], runs["b", 2]])
    (note,) = comparison.notes
    assert note == "b has the seeds 1, 2, a 0, 1: the difference is that of 1"
    difference = comparison.cells["b"]["overall"]["f1"].difference
    assert difference is not None
    assert difference.mean == 0
    (comparison,) = compare([runs["a", 0], runs["a", 1], runs["b", 2], runs["b", 3]])
    assert "left out, since they share none" in comparison.notes[0]
    assert comparison.cells["b"]["overall"]["f1"].difference is None
    # One run of another seed is no rule.
    (comparison,) = compare([runs["a", 0], runs["a", 1], runs["a", 2], runs["b", 2]])
    assert comparison.notes == ("b has the seeds 2, a 0, 1, 2: the difference is that of 2",)
    difference = comparison.cells["b"]["overall"]["f1"].difference
    assert difference is not None
    assert difference.mean == 0
    (comparison,) = compare([runs["a", 0], runs["a", 1], runs["b", 0]], "a")
    assert comparison.notes == ("one result is paired with every run of the other: b (seed 0 alone)",)
    (comparison,) = compare([runs["a", 0], runs["a", 1], runs["b", 0]], "b")
    assert comparison.notes == ("one result is paired with every run of the other: b (seed 0 alone)",)


def test_a_reference_that_a_subset_lacks_is_named() -> None:
    values = [0.1, 0.2, 0.3, 0.4]
    others = [_result("c", values, subset="photos"), _result("a", values, subset="photos")]
    first, second = compare([_result("a", values), _result("b", values), *others], "b")
    assert (first.reference, first.notes) == ("b", ())
    assert (second.reference, second.notes) == ("c", ("b was not measured here: compared with c",))


def test_one_picture_says_nothing() -> None:
    with pytest.raises(FocusError, match="got one picture of general"):
        compare([_result("a", [0.1]), _result("b", [0.2])])
    (comparison,) = compare([_result("a", [0.1], subset="photo"), _result("a", [0.1, 0.2, 0.4, 0.3])])
    assert (comparison.subset, comparison.notes) == ("general", ("left out: photo, one picture",))
    (comparison,) = compare([_result("a", [0.1, 0.3, 0.2]), _result("b", [0.2, 0.2, 0.2])])
    assert list(comparison.cells["a"]) == ["occluded", "overall"]
    assert comparison.notes == ("left out: unoccluded, one picture",)


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.9, 60)  # what makes a picture hard is common to both
    (comparison,) = compare([_result("base", hard), _result("better", hard + 0.01)])
    cell = comparison.cells["better"]["overall"]["f1"]
    assert cell.difference is not None
    assert cell.difference.low == pytest.approx(0.01)
    assert cell.difference.high == pytest.approx(0.01)
    assert cell.mean.high - cell.mean.low > 0.05
    assert comparison.cells["base"]["overall"]["f1"].difference is None
    assert comparison.cells["better"]["occluded"]["f1"].mean.mean == pytest.approx((hard[::2] + 0.01).mean())
    json.dumps(comparison.as_dict(), allow_nan=False)


def test_runs_pair_by_seed_and_a_rule_without_training_pairs_with_all() -> None:
    values = np.linspace(0.1, 0.5, 10)
    runs = [_result("net", values + seed / 10, seed=seed) for seed in (0, 1, 2)]
    others = [_result("old", values + seed / 10 - 0.05, seed=seed) for seed in (2, 0, 1)]
    (comparison,) = compare([*others, *runs, _result("rule", values)])
    difference = comparison.cells["net"]["overall"]["f1"].difference
    assert difference is not None
    assert (difference.low, difference.high) == (pytest.approx(0.05), pytest.approx(0.05))
    rule = comparison.cells["rule"]["overall"]["f1"].difference
    assert rule is not None
    assert rule.mean == pytest.approx(-0.05)
    assert comparison.seeds == {"old": (0, 1, 2), "net": (0, 1, 2), "rule": (0,)}


def test_what_cannot_be_compared_is_refused() -> None:
    a = _result("a", [0.1, 0.2])
    with pytest.raises(FocusError, match="another test set than a"):
        compare([a, _result("b", [0.1, 0.2], digest="def")])
    with pytest.raises(FocusError, match="version 2 and 1"):
        compare([a, _result("b", [0.1, 0.2], version=2)])
    with pytest.raises(FocusError, match="a comes twice with seed 0"):
        compare([a, a])
    with pytest.raises(FocusError, match="expected one of a, got 'z'"):
        compare([a], "z")


def test_photos_of_which_nothing_is_known_have_no_halves(tmp_path: Path) -> None:
    bare: dict[str, Any] = {"occluded": (), "occluder": (), "yaw": ()}
    first, second = _result("a", [0.1, 0.3], **bare), _result("b", [0.2, 0.6], **bare)
    append_results(tmp_path / "results.jsonl", [first, second])
    assert read_results(tmp_path / "results.jsonl") == [first, second]
    assert first.halves == ("overall",)
    assert _result("a", [0.1, 0.3]).halves == ("occluded", "unoccluded", "overall")
    assert first.of("f1", "occluded").size == 0
    (comparison,) = compare([first, second])
    assert list(comparison.cells["b"]) == ["overall"]
    assert comparison.cells["b"]["overall"]["f1"].mean.mean == pytest.approx(0.4)
    assert by_occluder(first, "f1") == {}
    with pytest.raises(FocusError, match="yaw is known, got none for a, general"):
        by_yaw([first], "f1")
    with pytest.raises(FocusError, match="disagree about which pictures are occluded"):
        compare([first, _result("b", [0.2, 0.6])])
    with pytest.raises(FocusError, match="pictures of the same name: x"):
        append_results(tmp_path / "results.jsonl", [_result("c", [0.1, 0.3], **bare, names=("x", "x"))])


def test_bins_of_yaw_by_hand() -> None:
    result = _result("a", [1, 2, 3, 5], yaw=(-20.0, -10.1, 0.0, 9.9))
    bins = by_yaw([result], "f1")
    assert [(part.low, part.count, part.mean, part.deviation) for part in bins] == [(-20, 2, 1.5, 0.5), (0, 2, 4, 1)]
    # Of the sample 1, 2: s = sqrt(0.5), and s / sqrt(2) = 0.5.
    assert [part.error for part in bins] == [pytest.approx(0.5), pytest.approx(1)]
    # More runs on the same faces are no more faces: each counts with its mean.
    assert by_yaw([result, result], "f1") == bins
    other = _result("a", [3, 2, 3, 5], yaw=result.yaw)
    assert [(part.count, part.mean, part.deviation) for part in by_yaw([result, other], "f1")] == [(2, 2, 0), (2, 4, 1)]
    with pytest.raises(FocusError, match="measured on another test set"):
        by_yaw([result, _result("a", [1, 2, 3, 5], yaw=result.yaw, names=tuple("wxyz"))], "f1")
    assert [(part.count, part.error) for part in by_yaw([result], "f1", "occluded")] == [(1, None), (1, None)]
    with pytest.raises(FocusError, match="has no 'recall', only f1"):
        by_yaw([result], "recall")
    with pytest.raises(FocusError, match="positive width"):
        by_yaw([result], "f1", width=0)


def test_methods_that_are_the_same_everywhere_are_drawn_once() -> None:
    pytest.importorskip("matplotlib")
    yaw = (-20.0, -10.1, 0.0, 9.9)
    values = {"a": [1, 2, 3, 5], "b": [1, 2, 3, 5], "c": [1, 2, 3, 6], "d": [1, 2, 3, 5]}
    results = {name: _result(name, value, yaw=yaw) for name, value in values.items()}
    halves = ("unoccluded", "occluded")
    curves = {half: {name: by_yaw([result], "f1", half) for name, result in results.items()} for half in halves}
    assert curves["occluded"]["a"] == curves["occluded"]["c"]  # equal in one half is not the same
    joined = join_equal(curves)
    assert {half: list(methods) for half, methods in joined.items()} == {half: ["a = b = d", "c"] for half in halves}
    assert joined["unoccluded"]["c"] == curves["unoccluded"]["c"]
    assert join_equal(joined) == joined
    picture = yaw_figure(curves, "f1")
    assert picture == yaw_figure(joined, "f1")
    long = {half: {20 * "name ": bins["a"], 21 * "name ": bins["a"]} for half, bins in curves.items()}
    assert yaw_figure(long, "f1") != picture


def test_kinds_of_occluders_by_hand() -> None:
    result = _result("a", [1, 2, 3], occluder=("hand", "none", "hand+cap"))
    assert by_occluder(result, "f1") == {"cap": (1, 3.0), "hand": (2, 2.0), "none": (1, 2.0)}
