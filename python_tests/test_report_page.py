"""The page of the demo: parses, loads nothing, and says what the numbers say."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from focus.eval.benchmark import HALVES
from focus.eval.claims import CLAIMS, Finding
from focus.eval.statistics import Interval
from focus.face import MorphableModel
from focus.report.charts import Curve, format_tick, interval_mark, line_chart, ticks
from focus.report.demo_page import DemoReport, Faces, demo_page
from focus.report.html import page
from focus.report.tables import average, findings_markdown, findings_table, html_table, markdown_table, terminal_table
from focus.report.viewer import Mesh, turntable, viewer

VOID = {"meta", "img", "input", "br", "line", "rect", "circle", "polyline"}


class Checker(HTMLParser):
    """Collects what a page refers to and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "data", "action", "srcset")]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def numbers(offset: float) -> dict[str, Any]:
    row = dict.fromkeys(("accuracy", "precision", "recall", "f1", "f1_std", "outlier_iou"), 0.5 + offset)
    shape = {"median": 2 - offset, "mean": 2.5 - offset, "std": 1.0}
    return {half: {**row, "shape_error_mm": shape, "appearance_rmse": 0.2 - offset} for half in HALVES}


METRICS = {"MoFA": numbers(0.0), "FOCUS": numbers(0.1), "Oracle": numbers(0.15)}
FINDINGS = [Finding(claim, 1.0, 2.0, Interval(-1.0, -1.5, -0.5), None) for claim in CLAIMS]


@pytest.fixture(scope="module")
def report() -> DemoReport:
    model = MorphableModel.procedural("small", 2, 2, 2)
    generator = torch.Generator().manual_seed(0)

    def faces(label: str, captions: tuple[str, ...] = ()) -> Faces:
        return Faces(
            label, torch.rand(2, 4, 8, 8, generator=generator), torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8), captions
        )

    mesh = Mesh("true <face>", model.mean_shape, model.mean_albedo)
    return DemoReport(
        metrics={"seed": 3, "commit": "abc", "settings": {"note": "<script>"}, "methods": METRICS},
        findings=FINDINGS,
        test_faces=7,
        round_photos=torch.rand(2, 3, 8, 8, generator=generator),
        round_truth=faces("truth"),
        rounds=[faces("Before"), faces("Round 1")],
        photos=torch.rand(2, 3, 8, 8, generator=generator),
        truth=faces("truth", ("hand & cup", "glasses")),
        methods=[faces("MoFA", ("2 mm", "3 mm")), faces("FOCUS", ("1 mm", "2 mm"))],
        scores={"Shape error": [Curve("FOCUS", [(0, 3.0), (10, 2.0)], "focus")]},
        losses={"Nothing logged": []},
        viewer=viewer(
            model,
            [mesh, Mesh("FOCUS", model.mean_shape * 1.01, model.mean_albedo, torch.full((model.vertex_count,), 1.25))],
        ),
        machine="a machine",
        minutes=1.25,
    )


@pytest.fixture(scope="module")
def html(report: DemoReport) -> str:
    return demo_page(report)


def test_page_is_well_formed_and_loads_nothing(html: str) -> None:
    checker = Checker(html)
    assert checker.open == []
    assert checker.counts["img"] == 2 * 2 * 3 + 2 * 2 * 3 + 5  # examples, rounds, turntable
    assert all(reference.startswith("data:image/png;base64,") for reference in checker.references)
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", html.split("<script>")[0])
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_words_of_others_are_escaped(html: str) -> None:
    assert "&lt;script&gt;" in html
    assert "hand &amp; cup" in html
    assert "true &lt;face&gt;" in html


def test_headline_follows_the_findings(report: DemoReport, html: str) -> None:
    # Smaller is better for two of the four claims: with every difference negative those two hold, and the others fail.
    assert "2 of 4 claims hold" in html
    assert html.count(">holds<") == 2
    assert html.count(">fails<") == 2
    better = {"f1": Interval(1.0, 0.5, 1.5), "outlier_iou": Interval(1.0, 0.5, 1.5)}
    good = [replace(found, difference=better.get(found.claim.metric, found.difference)) for found in FINDINGS]
    text = demo_page(replace(report, findings=good))
    assert "reconstructs occluded faces better than the one that does not" in text
    assert "On 7 occluded test faces FOCUS is 1.00 mm from the true shape" in text


def test_meshes_survive_their_way_into_the_page(report: DemoReport) -> None:
    text = re.search(r'<script type="application/json" id="meshes">(.*?)</script>', report.viewer, re.DOTALL)
    assert text is not None
    content = json.loads(text[1])
    model = MorphableModel.procedural("small", 2, 2, 2)
    faces = np.frombuffer(base64.b64decode(content["faces"]), "<u4").reshape(-1, 3)
    assert (faces == model.faces.numpy()).all()
    first, second = content["meshes"]
    positions = np.frombuffer(base64.b64decode(first["positions"]), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(positions, (model.mean_shape - model.mean_shape.mean(0)).numpy(), atol=1e-4)
    errors = np.frombuffer(base64.b64decode(second["errors"]), np.uint8)
    assert (errors == 64).all()  # 1.25 of 5 mm
    assert "1.25 mm" in report.viewer


def test_turntable_turns() -> None:
    model = MorphableModel.procedural("small", 2, 2, 2)
    pictures = turntable(model, Mesh("mean", model.mean_shape, model.mean_albedo))
    shown = [picture[..., 3].astype(float) for picture in pictures]
    assert len(pictures) == 5
    assert all(0.1 < mask.mean() / 255 < 0.9 for mask in shown)
    assert np.abs(shown[0] - shown[2]).mean() > 5
    # Left and right views mirror each other.
    assert np.abs(shown[0] - shown[4][:, ::-1]).mean() < np.abs(shown[0] - shown[4]).mean()


def test_viewer_needs_a_mesh() -> None:
    with pytest.raises(ValueError, match="at least one mesh"):
        viewer(MorphableModel.procedural("small", 2, 2, 2), [])


def test_page_without_scripts_has_none() -> None:
    assert "<script" not in page("title", "<p>text</p>")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, ["0", "2.5", "5.0", "7.5", "10.0"]), (0.021, 0.034, ["0.020", "0.025", "0.030", "0.035"]), (5, 5, None)],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[str] | None) -> None:
    values = ticks(low, high, 5)
    assert values[0] <= low
    assert values[-1] >= high
    assert 2 <= len(values) <= 8
    if expected:
        assert [format_tick(value, values) for value in values] == expected


def test_line_chart_scales_to_its_frame_and_leaves_out_what_is_not_finite() -> None:
    chart = line_chart(
        [Curve("a & b", [(0, 1.0), (5, float("nan")), (10, 2.0)], "focus"), Curve("empty", [], "mofa")],
        title="t",
        x_label="x",
    )
    Checker(chart)
    (points,) = re.findall(r'points="([^"]+)"', chart)
    pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
    assert len(pairs) == 2
    assert pairs[0][0] < pairs[1][0]
    assert pairs[0][1] > pairs[1][1]  # up is smaller y
    assert "a &amp; b" in chart
    assert "empty" not in chart


def test_interval_mark_says_how_sure() -> None:
    assert 'class="interval good"' in interval_mark(Interval(-1, -2, -0.5), limit=2, good=-1)
    assert 'class="interval bad"' in interval_mark(Interval(-1, -2, -0.5), limit=2, good=1)
    assert 'class="interval open"' in interval_mark(Interval(-1, -2, 0.5), limit=2, good=1)


def test_tables_mark_the_best_and_let_the_oracle_alone() -> None:
    text = markdown_table(METRICS, ["occluded"])
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()}
    assert "**0.600**" in rows["FOCUS"]
    assert "**1.90**" in rows["FOCUS"]
    assert "**" not in rows["MoFA"]
    assert "**" not in rows["Oracle"]
    assert len({line.count("|") for line in text.splitlines()}) == 1
    Checker(html_table(METRICS))
    assert terminal_table(METRICS).row_count == 3 * (1 + len(METRICS))


def test_findings_are_told_in_words() -> None:
    text = findings_markdown(FINDINGS)
    assert "FOCUS against MoFA: shape error | 1.000 mm | 2.000 mm | -1.000 | -1.500 to -0.500" in text
    assert findings_table(FINDINGS).row_count == len(FINDINGS)


def test_average_of_runs() -> None:
    mean = average([{"FOCUS": numbers(0.0), "MoFA": numbers(0.0)}, {"FOCUS": numbers(0.2)}])
    assert list(mean) == ["FOCUS"]
    assert mean["FOCUS"]["occluded"]["f1"] == pytest.approx(0.6)
    assert mean["FOCUS"]["overall"]["shape_error_mm"]["median"] == pytest.approx(1.9)
