"""A browser for all tests of a process, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.static.chromium import Browser, Page, running_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own; whatever it complains of fails the test."""
    page = browser.new_page()
    page.set_size(1400, 900)
    yield page
    page.close()
    assert [text for text in page.complaints if "ERR_CONNECTION_REFUSED" not in text] == []  # a test's server ends
