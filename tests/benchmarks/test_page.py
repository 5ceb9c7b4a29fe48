"""docs/performance.md is what its numbers make of it."""

from __future__ import annotations

import json
import tomllib
from xml.etree import ElementTree

import pytest

from benchmarks import page
from benchmarks.figures import FIGURES
from benchmarks.plot import bars, plot

REASONS = tomllib.loads(page.REASONS.read_text())
SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_is_made_of_its_numbers() -> None:
    made = page.files(json.loads(page.NUMBERS.read_text()))
    assert {path.name for path in made if path.suffix == ".svg"} == {path.name for path in page.FOLDER.glob("*.svg")}
    assert [path.name for path, text in made.items() if path.read_text() != text] == [], (
        "run `python -m benchmarks.page`"
    )


def test_reasons_are_of_goals_and_name_what_is_measured() -> None:
    figures = {each.name: each for each in FIGURES}
    goals = {f"{each.name}: {goal.wanted}" for each in FIGURES for goal in each.goals}
    assert set(REASONS) <= goals
    for reason in REASONS.values():
        references = page.REFERENCE.findall(reason)
        assert reason.count("{") == len(references)
        for name, row, *_ in references:
            assert row in {each.name for each in figures[name].rows}


def test_a_reason_is_shown_where_the_goal_is_missed_with_the_numbers_of_the_run() -> None:
    kept = json.loads(page.NUMBERS.read_text())
    start_up = next(each for each in FIGURES if each.name == "start_up")
    (row, *_), (goal, *_) = start_up.rows, start_up.goals
    reason = {f"start_up: {goal.wanted}": f"It is {{start_up|{row.name}|{goal.way}}} here, {{start_up|{row.name}|no}}."}
    for extra, shown in ((0.0, False), (41.0, True)):
        numbers = {goal.beside: [2.0], goal.way: [2.0 + extra]}
        kept["figures"]["start_up"]["rows"] = {row.name: numbers}
        said = page.page(kept, reason)
        assert ("It is 43.00 [43.00, 43.00] here, not measured." in said) is shown
        assert f"{goal.wanted}: {extra:.2f}" in said
    assert "The reason is not known yet." in page.page(kept, {})


@pytest.mark.parametrize(
    "drawn",
    [
        plot("rate", "size", {"a": [(1, 10), (100, 1000)], "b": [(1, 5), (100, 7)]}),
        bars("time", {"`one`": {"a": 3.0, "b": 0.0}, "two": {"b": 2000.0}}),
    ],
)
def test_a_picture_is_svg_and_has_all_names(drawn: str) -> None:
    texts = {each.text for each in ElementTree.fromstring(drawn).iter(f"{SVG}text")}
    assert {"a", "b"} <= texts


def test_bars_are_as_long_as_their_numbers() -> None:
    drawn = ElementTree.fromstring(bars("time", {"one": {"a": 4.0, "b": 1.0}, "two": {"a": 8.0}}))
    widths = [float(each.attrib["width"]) for each in drawn.iter(f"{SVG}rect")][1:]
    assert widths[1] == pytest.approx(widths[0] / 4, abs=0.1)
    assert widths[2] == widths[0]
