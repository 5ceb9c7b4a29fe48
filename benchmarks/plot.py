"""Plots as SVG: lines over logarithmic axes, or bars; with nothing but text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from benchmarks.markdown import number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 70, 150, 36, 46
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito: told apart by everybody."""
BAR, GAP = 15, 26  # heights, of a bar and of a group's name

Points = Sequence[tuple[float, float]]


def plot(title: str, across: str, lines: Mapping[str, Points], names: Sequence[str] = ()) -> str:
    """lines: by their names; all numbers are greater than 0. title: says what goes upwards, and its unit.

    names: which have their colours in this order, here and in other plots.
    """
    colours = _colours([*names, *lines])
    points = [point for line in lines.values() for point in line]
    columns, rows = _decades([x for x, _ in points]), _decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - columns[0]) / (columns[-1] - columns[0])
        up = (math.log10(y) - rows[0]) / (rows[-1] - rows[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        *_paper(HEIGHT, title),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{across}</text>',
    ]
    for power in columns:
        x, y = place(10.0**power, 10.0 ** rows[0])
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{_number(power)}</text>')
    for power in rows:
        x, y = place(10.0 ** columns[0], 10.0**power)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(power)}</text>')
    for line_of, (name, line) in enumerate(lines.items()):
        colour = colours[name]
        places = [place(*point) for point in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 14 + 18 * line_of}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def bars(title: str, groups: Mapping[str, Mapping[str, float]], names: Sequence[str] = ()) -> str:
    """A bar for each number, as long as it is beside the greatest of its group. names: as above."""
    height = TOP + sum(GAP + BAR * len(numbers) for numbers in groups.values()) + GAP // 2
    room = WIDTH - LEFT - RIGHT - LEFT
    colours = _colours([*names, *(name for numbers in groups.values() for name in numbers)])
    parts, y = _paper(height, title), TOP
    for group, numbers in groups.items():
        parts.append(f'<text x="8" y="{y + 16}" font-weight="bold">{_plain(group)}</text>')
        y += GAP
        most = max(numbers.values())
        for name, value in numbers.items():
            long = max(1.0, value / most * room) if most else 1.0
            parts.append(f'<text x="{2 * LEFT - 6}" y="{y + 11}" text-anchor="end">{_plain(name)}</text>')
            parts.append(
                f'<rect x="{2 * LEFT}" y="{y + 1}" width="{long:.1f}" height="{BAR - 3}" fill="{colours[name]}"/>'
            )
            parts.append(f'<text x="{2 * LEFT + long + 6:.1f}" y="{y + 11}">{number(value)}</text>')
            y += BAR
    return "\n".join([*parts, "</svg>\n"])


def _colours(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(names), itertools.cycle(COLOURS), strict=False))


def _paper(height: int, title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]


def _plain(text: str) -> str:
    """Without what Markdown marks code with."""
    return text.replace("`", "")


def _decades(numbers: Sequence[float]) -> range:
    low, high = math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers)))
    return range(low, max(high, low + 1) + 1)


def _number(power: int) -> str:
    if power >= 6:
        return f"{10 ** (power - 6):,}M"
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
