"""The documents: the reference is the sources', and no link leads nowhere."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

from docs.generate import REFERENCE, reference

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = [ROOT / each for each in listed.split()] or [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [each for each in found if each.exists()]


def test_the_reference_is_up_to_date() -> None:
    there = {each.name: each.read_text() for each in REFERENCE.iterdir()}
    made = reference()
    assert there.keys() == made.keys()
    assert [name for name in made if there[name] != made[name]] == [], "run `python -m docs.generate`"


@lru_cache
def prose(document: Path) -> str:
    """Its text without code."""
    return re.sub(
        r"`[^`\n]*`", lambda code: "`" + re.sub(r"[\[\]()]", "", code[0]), FENCE.sub("", document.read_text())
    )


@lru_cache
def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, no punctuation, hyphens for spaces; a number where one repeats."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.*?)#* *$", FENCE.sub("", document.read_text()), flags=re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


@pytest.mark.parametrize("document", documents(), ids=lambda each: str(each.relative_to(ROOT)))
def test_links(document: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (document.parent / place).resolve() if place else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_the_tests_that_show_it_are_there(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / page).read_text())
    assert named
    texts = {file: (ROOT / file).read_text() for file, _ in named}
    missing = [(file, test) for file, test in named if test and f"def {test}(" not in texts[file]]
    assert missing == []
