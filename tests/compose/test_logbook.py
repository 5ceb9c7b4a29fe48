"""What was said is read from its beginning, its end, and as it comes; slow readers cost nobody anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appswitch.compose.logbook import Line, LogBook, last_lines


def line(text: str, service: str = "web") -> Line:
    return Line(1.5, service, f"{service}-1", text)


async def texts(book: LogBook, *services: str, tail: int | None = None, follow: bool = False) -> list[str]:
    return [each.text async for piece in book.read(services, tail, follow) for each in piece]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_all_of_it_or_the_end_or_a_services(path: Path) -> None:
    book = LogBook(path)
    book.add([line("a"), line("b", "db"), line("c\u2028\n")])
    book.add([line("d", "db")])
    assert await texts(book) == ["a", "b", "c\u2028\n", "d"]
    assert await texts(book, tail=2) == ["c\u2028\n", "d"]
    assert await texts(book, tail=0) == []
    assert await texts(book, "db") == ["b", "d"]
    assert await texts(book, "db", tail=1) == ["d"]
    assert [each.text for each in last_lines(path, 2)] == ["c\u2028\n", "d"]
    book.close()


async def test_as_it_comes_until_all_has_ended(path: Path) -> None:
    book = LogBook(path)
    book.add([line("before")])
    heard: list[str] = []

    async def follow(tail: int | None) -> None:
        heard.extend(await texts(book, tail=tail, follow=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, None)
        nursery.start_soon(follow, 0)
        for text in ("one", "two"):
            await wait_all_tasks_blocked()
            book.add([line(text)])
        await wait_all_tasks_blocked()
        assert heard == []
        book.close()
    assert sorted(heard) == sorted(["before", "one", "two", "one", "two"])
    await book.until_read()


async def test_a_long_file_becomes_the_old_one_and_readers_miss_nothing(path: Path) -> None:
    book = LogBook(path, most_bytes=1000)
    heard: list[str] = []

    async def follow() -> None:
        heard.extend(await texts(book, follow=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for number in range(100):
            await wait_all_tasks_blocked()
            book.add([line(str(number))])
        left = await texts(book)
        book.close()
    assert heard == [str(number) for number in range(100)]
    assert left == heard[-len(left) :]
    assert 10 < len(left) < 40
    assert {each.name for each in path.parent.iterdir()} == {"log", "log.1"}


@pytest.fixture
def cut(path: Path) -> None:
    path.write_bytes(b'{"time": 1.5, "serv\n')


@pytest.mark.usefixtures("cut")
async def test_a_line_that_a_full_disk_has_cut_is_left_out(path: Path) -> None:
    book = LogBook(path)
    book.add([line("a")])
    assert await texts(book) == ["a"]
    book.close()


def test_a_disk_that_takes_nothing() -> None:
    book = LogBook(Path("/dev/full"))
    book.add([line("lost")])
    book.close()
