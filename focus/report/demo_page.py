"""``report.html`` of `focus demo`: what was claimed, what came out, and pictures to believe it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any

from torch import Tensor

from focus.eval.claims import CLAIMS, LARGER_IS_BETTER, Finding
from focus.report.charts import Curve, interval_mark, line_chart
from focus.report.html import Cell, Head, asset, page, picture_grid
from focus.report.panels import Picture, cut_out, grid, overlay_mask, to_picture
from focus.report.tables import finding_texts, html_table


@dataclass(frozen=True)
class Faces:
    """Some faces as a network or a method sees them, on the CPU."""

    label: str
    """Of the method, or of the moment in training."""
    picture: Tensor
    """``[N, 4, P, P]``, the reconstruction for people, at any resolution; the fourth channel is its mask."""
    rendered: Tensor
    """``[N, 1, S, S]`` in {0, 1}."""
    mask: Tensor
    """``[N, 1, S, S]`` in [0, 1]."""
    captions: Sequence[str] = ()
    """For each face."""


@dataclass(frozen=True)
class DemoReport:
    """Everything that the page shows."""

    metrics: Mapping[str, Any]
    """metrics.json."""
    findings: Sequence[Finding]
    test_faces: int
    """Number of test faces; each was seen with and without an occluder."""
    round_photos: Tensor
    """``[N, 3, S, S]`` validation faces."""
    round_truth: Faces
    """The photos above: the face without its occluder, its region, and the visible part."""
    rounds: Sequence[Faces]
    """The photos above before the first and after every round."""
    photos: Tensor
    """``[N, 3, S, S]`` test faces."""
    truth: Faces
    """The photos above: the face without its occluder, its region, and the visible part."""
    methods: Sequence[Faces]
    """The photos above as each method sees them."""
    scores: Mapping[str, Sequence[Curve]]
    """Title -> validation scores over the iterations of the reconstruction network."""
    losses: Mapping[str, Sequence[Curve]]
    """Title -> training losses over the iterations of their network."""
    viewer: str
    """HTML of `focus.report.viewer.viewer`."""
    machine: str
    """Where it ran, in words."""
    minutes: float
    """How long it took."""


_NOTES = {
    "MeanFace": "average face",
    "MoFA": "no mask",
    "Pretrained": "robust rule",
    "FOCUS": "learnt mask",
    "Oracle": "true mask",
}


def demo_page(report: DemoReport) -> str:
    """The page as one HTML document; its words are in ``assets/demo.html``."""
    metrics = report.metrics
    body = Template(asset("demo.html")).substitute(
        seed=metrics["seed"],
        headline=_headline(report),
        lede=" ".join(_sentences(report)),
        claims=_claims(report.findings),
        example_count=len(report.photos),
        examples=_examples(report),
        rounds=_rounds(report),
        table=html_table(metrics["methods"]),
        viewer=report.viewer,
        charts="".join(_charts(report)),
        settings=escape(json.dumps(metrics["settings"], indent=2)),
        machine=escape(report.machine),
        minutes=f"{report.minutes:.1f}",
        commit=escape(str(metrics["commit"])),
    )
    return page(f"FOCUS demo, seed {metrics['seed']}", body, scripts=("viewer.js",))


def faces_sheet(report: DemoReport, count: int = 6) -> Picture:
    """The first test faces, not a selection, one in each row: photo, its face without the occluder, what MoFA and
    FOCUS make of it, and the mask of FOCUS.
    """
    methods = {faces.label: faces for faces in report.methods}
    shown = [methods[name] for name in ("MoFA", "FOCUS")]
    rows = []
    for i, photo in enumerate(report.photos[:count]):
        faces = [_reconstruction(each, i) for each in (report.truth, *shown)]
        rows.append([to_picture(photo), *faces, overlay_mask(photo, shown[1].mask[i], shown[1].rendered[i])])
    labels = ("photo", "true face", "MoFA", "FOCUS", "FOCUS: hidden")
    return grid(rows, column_labels=labels, cell=2 * report.photos.shape[-1])


def _headline(report: DemoReport) -> str:
    claims = [found for found in report.findings if found.claim in CLAIMS]
    held = sum(found.verdict == "holds" for found in claims)
    if claims and held == len(claims):
        return "The pipeline that segments outliers reconstructs occluded faces better than the one that does not."
    return f"Segmenting outliers to reconstruct occluded faces: {held} of {len(claims)} claims hold on this run."


def _sentences(report: DemoReport) -> list[str]:
    """The claims in words, with their numbers."""
    found = {finding.claim.metric: finding for finding in report.findings if finding.claim in CLAIMS}
    texts = []
    if shape := found.get("shape_error_mm"):
        texts.append(
            f"On {report.test_faces} occluded test faces FOCUS is {shape.first:.2f} mm from the true shape; the same "
            "network, trained as long on the same pictures without a mask (MoFA), is "
            f"{shape.second:.2f} mm off ({_interval(shape, 2)} mm)."
        )
    if appearance := found.get("appearance_rmse"):
        texts.append(
            f"The colour of its faces, the hidden part included, errs by {appearance.first:.3f} instead of "
            f"{appearance.second:.3f} ({_interval(appearance, 3)})."
        )
    if iou := found.get("outlier_iou"):
        texts.append(
            f"Its masks find the hidden part with an IoU of {iou.first:.2f}, the rule that they were first learnt from "
            f"with {iou.second:.2f} ({_interval(iou, 2)})."
        )
    return texts


def _interval(found: Finding, digits: int) -> str:
    largest = max(abs(found.difference.low), abs(found.difference.high), 1e-4)
    digits = max(digits, 1 - math.floor(math.log10(largest)))  # two digits of the bound that matters
    mean, low, high = (typeset(f"{value:+.{digits}f}") for value in found.difference)
    return f"difference {mean}, 95% interval {low} to {high}"


def typeset(text: str) -> str:
    """Numbers with a minus sign in place of the hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def _claims(findings: Sequence[Finding]) -> str:
    head = "".join(f"<th>{text}</th>" for text in ("", "first", "second", "difference", "95% interval", "", ""))
    groups = {"The claims": [f for f in findings if f.claim in CLAIMS]}
    groups["Can the benchmark tell?"] = [f for f in findings if f.claim not in CLAIMS]
    bodies = [_claim_rows(title, group) for title, group in groups.items() if group]
    table = f"<thead><tr>{head}</tr></thead>{''.join(bodies)}"
    return f'<div class="scroll"><table class="claims">{table}</table></div>'


def _claim_rows(title: str, findings: Sequence[Finding]) -> str:
    rows = [f'<tr><th scope="rowgroup" colspan="7">{title}</th></tr>']
    for found in findings:
        texts = "".join(f"<td>{typeset(text)}</td>" for text in finding_texts(found))
        style = {"holds": "good", "open": "open", "fails": "bad"}[found.verdict]
        # Each on the axis of its own metric: the mark says how sure, the numbers say how much.
        limit = 1.15 * max(abs(found.difference.low), abs(found.difference.high), 1e-12)
        mark = interval_mark(found.difference, limit=limit, good=1 if LARGER_IS_BETTER[found.claim.metric] else -1)
        rows.append(
            f"<tr><td>{escape(str(found.claim))}</td>{texts}<td>{mark}</td>"
            f'<td class="verdict {style}">{found.verdict}</td></tr>'
        )
    return f"<tbody>{''.join(rows)}</tbody>"


def _examples(report: DemoReport) -> str:
    heads = [Head("Photo", "and its face, bare")]
    heads += [Head(faces.label, _NOTES.get(faces.label, ""), faces.label.lower()) for faces in report.methods]
    truth = report.truth
    rows = []
    for i, photo in enumerate(report.photos):
        pictures = (
            (to_picture(photo), f"test photo {i + 1}"),
            (_reconstruction(truth, i), "its face without the occluder"),
        )
        first = Cell(pictures, [truth.captions[i]] if truth.captions else ())
        rows.append([first, *(_cell(faces, i, photo) for faces in report.methods)])
    return picture_grid(heads, rows)


def _rounds(report: DemoReport) -> str:
    heads = [Head("Photo", "and what hides its face"), *(Head(faces.label) for faces in report.rounds)]
    rows = []
    for i, photo in enumerate(report.round_photos):
        truth = overlay_mask(photo, report.round_truth.mask[i], report.round_truth.rendered[i])
        first = Cell(((to_picture(photo), f"validation photo {i + 1}"), (truth, "what hides its face")))
        rows.append([first, *(_cell(faces, i, photo) for faces in report.rounds)])
    return picture_grid(heads, rows)


def _cell(faces: Faces, i: int, photo: Tensor) -> Cell:
    pictures = (
        (_reconstruction(faces, i), f"{faces.label}: reconstruction"),
        (overlay_mask(photo, faces.mask[i], faces.rendered[i]), f"{faces.label}: what its mask calls hidden"),
    )
    return Cell(pictures, [faces.captions[i]] if faces.captions else ())


def _reconstruction(faces: Faces, i: int) -> Picture:
    return cut_out(faces.picture[i, :3], faces.picture[i, 3:])


def _charts(report: DemoReport) -> list[str]:
    of_reconstruction, of_itself = "iterations of the reconstruction network", "iterations of this network"
    scores = [line_chart(curves, title=title, x_label=of_reconstruction) for title, curves in report.scores.items()]
    losses = [line_chart(curves, title=title, x_label=of_itself, zero=True) for title, curves in report.losses.items()]
    return scores + losses
