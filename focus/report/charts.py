"""Small charts as inline SVG: colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from focus.eval.statistics import Interval

_WIDTH, _HEIGHT = 420.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 16.0, 8.0, 40.0


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    label: str
    points: Sequence[tuple[float, float]]
    """(x, y), by rising x; points that are not finite are left out."""
    style: str
    """Class of the style sheet, which gives it its colour."""


def line_chart(curves: Sequence[Curve], *, title: str, x_label: str, zero: bool = False) -> str:
    """A figure with one or more lines, axes and a legend.

    Args:
        curves: lines without points are left out.
        title: what is on the y axis, with its unit.
        x_label: what is on the x axis.
        zero: let the y axis begin at zero.

    Returns:
        HTML.
    """
    drawn = [(c, [(x, y) for x, y in c.points if math.isfinite(x) and math.isfinite(y)]) for c in curves]
    drawn = [(curve, points) for curve, points in drawn if points]
    caption = f"<figcaption>{escape(title)}</figcaption>"
    if not drawn:
        return f'<figure class="chart">{caption}<p class="note">no values were logged</p></figure>'
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points] + ([0.0] if zero else [])
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    x_low, x_high = min(x_ticks[0], min(xs)), max(x_ticks[-1], max(xs))
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at_x(x: float) -> float:
        return _LEFT + (x - x_low) / ((x_high - x_low) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in y_ticks:
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{format_tick(tick, y_ticks)}</text>')
    for tick in x_ticks:
        place = f'x="{at_x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16:g}" text-anchor="middle"'
        parts.append(f"<text {place}>{format_tick(tick, x_ticks)}</text>")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 3:g}" text-anchor="middle" class="axis">{escape(x_label)}</text>')
    for curve, points in drawn:
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {curve.style}" points="{path}"/>')
    legend = "".join(f'<li class="{curve.style}">{escape(curve.label)}</li>' for curve, _ in drawn)
    return (
        f'<figure class="chart">{caption}'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def interval_mark(interval: Interval, *, limit: float, good: int) -> str:
    """A dot with its interval on an axis from -limit to limit with a line at zero, as a small SVG.

    Args:
        interval: what to draw; cut off at the limits.
        limit: positive.
        good: 1 or -1, the direction that is better; the side of it is tinted.
    """
    width, height, middle, zero = 160.0, 18.0, 9.0, 80.0

    def at(value: float) -> float:
        return zero + max(-1.0, min(1.0, value / limit)) * (zero - 6)

    low, high, side = at(interval.low), at(interval.high), 0.0 if good < 0 else zero
    state = "good" if interval.sign == good else "bad" if interval.sign == -good else "open"
    return (
        f'<svg class="interval {state}" viewBox="0 0 {width:g} {height:g}" aria-hidden="true">'
        f'<rect class="side" x="{side:g}" y="0" width="{width - zero:g}" height="{height:g}"/>'
        f'<line class="zero" x1="{zero:g}" x2="{zero:g}" y1="0" y2="{height:g}"/>'
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>'
        f'<circle cx="{at(interval.mean):.1f}" cy="{middle:g}" r="3.6"/></svg>'
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from at most `low` to about `high`."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def format_tick(value: float, among: Sequence[float]) -> str:
    """A tick's label with the decimals that its axis needs."""
    step = float(f"{among[1] - among[0]:.6g}") if len(among) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    if round(step * 10**decimals, 6) % 1:
        decimals += 1
    return f"{value:,.{decimals}f}" if value else "0"
