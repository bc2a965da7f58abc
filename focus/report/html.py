"""The bones of a self-contained page: one file that loads nothing, in light and in dark, on a screen or a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from focus.report.panels import Picture
from focus.report.viewer import data_uri

# Nothing may be fetched, whatever a value in the page says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, body: str, *, scripts: Sequence[str] = ()) -> str:
    """A whole HTML document.

    Args:
        title: of the window, plain text.
        body: HTML.
        scripts: names of files in ``assets`` to run at the end.
    """
    code = "".join(f"<script>{asset(name)}</script>" for name in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{asset('page.css')}</style></head>\n"
        f"<body><main>\n{body}\n</main>{code}</body></html>\n"
    )


def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return (files("focus.report") / "assets" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Cell:
    """Pictures one above the other, with a caption."""

    pictures: Sequence[tuple[Picture, str]]
    """(picture, what it shows) for those who do not see it."""
    caption: Sequence[str] = ()
    """Lines of plain text."""


@dataclass(frozen=True)
class Head:
    """A column of a picture grid."""

    text: str
    note: str = ""
    style: str = ""
    """Class of the style sheet."""


def picture_grid(heads: Sequence[Head], rows: Sequence[Sequence[Cell]]) -> str:
    """Pictures in columns with headings."""
    parts = [
        f'<div class="head {head.style}">{escape(head.text)}<small>{escape(head.note)}</small></div>' for head in heads
    ]
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(
                f"picture_grid: expected {len(heads)} cells in a row, one for each heading, got {len(row)}"
            )
        for cell in row:
            images = "".join(f'<img src="{data_uri(picture)}" alt="{escape(text)}">' for picture, text in cell.pictures)
            caption = "<br>".join(escape(line) for line in cell.caption)
            parts.append(f"<figure>{images}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>")
    return f'<div class="faces" style="--columns: {len(heads)}">{"".join(parts)}</div>'
