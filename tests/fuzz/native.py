"""The parsers in C, built with AddressSanitizer and UndefinedBehaviorSanitizer: native/NAME.c feeds each.

With gcc they get native/driver.c, which makes inputs by chance; with clang, libFuzzer, which sees what branches an
input takes and goes on from those that take new ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from appswitch._lanes import ffi as lanes_ffi
from appswitch._lanes import lib as lanes_lib
from attrs import frozen

from appswitch.wire import lanes, relay
from tests.fuzz.parsers import named

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "native"
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-iquote", "shim", "-pthread"]
SANITIZE = "address,undefined"
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=1:handle_abort=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
# What a program calls isn't among what is fuzzed: it would take the place of libc's own.
WRAPPERS = {"hooks.c", "exec.c", "resolve.c", "interfaces.c", "syscalls.c"}


@frozen
class Native:
    """name: of the row in docs/reliability.md; file: in native/; sources: of shim/; seeds: as of parsers.Parser.

    played: the system calls are the fuzzer's (native/kernel.h); most: bytes of an input.
    """

    name: str
    file: str
    sources: tuple[str, ...]
    seeds: tuple[bytes, ...]
    played: bool = False
    most: int = 512

    def build(self, directory: Path, *, by_libfuzzer: bool = False, for_valgrind: bool = False) -> Path:
        """Compiles it. by_libfuzzer: with clang; for_valgrind: without sanitizers."""
        made = directory / (self.file + "-guided" * by_libfuzzer + "-plain" * for_valgrind)
        kind = ["clang", f"-fsanitize=fuzzer,{SANITIZE}", "-Wno-unknown-warning-option"]
        if not by_libfuzzer:
            kind = ["gcc", *([] if for_valgrind else [f"-fsanitize={SANITIZE}"]), str(HERE / "driver.c")]
        play = ["-ffreestanding", "-include", str(HERE / "kernel.h")] if self.played else []
        sources = [str(HERE / f"{self.file}.c"), *(f"shim/{each}" for each in self.sources)]
        command = [*kind, *FLAGS, "-fno-sanitize-recover=all", *play, "-o", str(made), *sources]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return made

    def run(self, program: Path, count: int, seed: int, under: Sequence[str] = ()) -> int:
        """Feeds `count` inputs of gcc's build: how many there were. under: what runs it. CrashError."""
        with self._files() as (directory, files):
            words = [*under, str(program), str(count), str(seed), str(self.most), *map(str, files)]
            return int(_run(self, words, directory).stdout)

    def run_guided(self, program: Path, seconds: int, found: Path) -> int:
        """Has libFuzzer feed clang's build; found: where it keeps what takes new branches. CrashError."""
        with self._files() as (directory, _):
            options = [f"-max_total_time={seconds}", f"-max_len={self.most}", "-print_final_stats=1", "-verbosity=0"]
            done = _run(self, [str(program), *options, str(found), str(directory)], directory)
        (tried,) = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
        return int(tried)

    @contextlib.contextmanager
    def _files(self) -> Iterator[tuple[Path, list[Path]]]:
        with tempfile.TemporaryDirectory(prefix="as-fuzz-") as name:
            files = [Path(name) / str(number) for number in range(len(self.seeds))]
            for path, data in zip(files, self.seeds, strict=True):
                path.write_bytes(data)
            yield Path(name), files


class CrashError(Exception):
    """What a sanitizer said; the input is kept where the text says."""


def _run(native: Native, words: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, cwd=directory, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        kept = ""
        for path in [*directory.glob("crash-*"), *directory.glob("leak-*")]:
            kept = str(shutil.copy(path, Path(tempfile.gettempdir()) / f"{native.file}-{path.name}"))
        raise CrashError(f"{' '.join(words[:4])}: {kept}\n{done.stderr[-6000:]}")
    return done


def _records() -> Iterator[bytes]:
    """Of lanes, with what a client says after it."""
    for number in (1, 2, 2**64 - 1):
        record = lanes_ffi.new("struct as_lane_record *", {"lane": 1 << 56, "number": number})
        lanes_lib.seal_record(record, b"0123456789abcde\0")
        yield bytes(lanes_ffi.buffer(record))
        yield bytes(lanes_ffi.buffer(record)) + b"GET / HTTP/1.1\r\n\r\n\0"


def _orders() -> Iterator[bytes]:
    """As native/relay.c has them: by which channel, how many descriptors, which, how long; the message."""
    control, doors = 0, 1
    loopback = ip_address("127.0.0.1")
    for head, what, message in (
        ((control, 2), 0b1111, relay.encode_join(b"head", 5.0)),
        ((control, 0), 0, relay.encode_question()),
        ((control, 1), 2, relay.encode_doors()),
        ((doors, 0), 0, lanes.encode_lane(3, 7, bytes(16), (loopback, 1))),
        ((doors, 1), 0, lanes.encode_door(5, [3, 3], None)),
        ((doors, 0), 0, lanes.encode_turns(5, [3])),
        ((doors, 0), 0, lanes.encode_question(9)),
        ((doors, 0), 0, lanes.encode_shut(5)),
    ):
        yield bytes([*head, what, len(message)]) + message


_ENVIRONMENT = (
    b"\x01LD_PRELOAD=/usr/lib/libappswitch.so:/x.so\0APPSWITCH_APP=netns:5f\0APPSWITCH_SOCKET=/run/x\0PATH=/bin\0",
    b"\x02APPSWITCH_NAME=web\0APPSWITCH_TAGS=a=b,c=d\0XDG_RUNTIME_DIR=/run/user/5\0LD_PRELOAD=/a b\0",
    b"\x05APPSWITCH_APP=" + b"0f" * 16 + b"\0APPSWITCH_BYPASS=10.0.0.0/8\0HOME=" + b"x" * 300 + b"\0",
)
_SOCKADDRS = (
    bytes([2, 0, 0, 80, 127, 0, 0, 1]) + bytes(8),
    bytes([10, 0, 0, 80]) + bytes(24),
    bytes([2, 0, 0, 80, 10, 0, 0, 1]) + bytes(120) + bytes([10, 0, 1, 1]) + bytes(124),
)
_ORDERS = tuple(_orders())
_LIBRARY = tuple(sorted(path.name for path in (ROOT / "shim").glob("*.c") if path.name not in WRAPPERS))
_RELAY = tuple(f"relay/{path.name}" for path in sorted((ROOT / "shim" / "relay").glob("*.c"))
               if path.name not in ("main.c", "pipes.c"))  # fmt: skip  # which relay.c includes

NATIVES = [
    Native("names of sockets, and addresses of programs (shim)", "names", ("names.c",),
           tuple(b"\1\0" + each for each in named("names of sockets").seeds) + _SOCKADDRS, most=140),
    Native("a trap handler's replies, and what the kernel says (shim)", "reply", _LIBRARY,
           (bytes(range(200)), bytes(400)), played=True),
    Native("the environment (shim)", "settings", ("sys.c",), _ENVIRONMENT, played=True, most=2048),
    Native("programs, ELF (shim)", "elf", ("elf.c",), named("programs (ELF)").seeds, played=True, most=2048),
    Native("records of lanes", "record", ("lane/record.c", "lane/siphash.c", "lane/window.c"), tuple(_records())),
    Native("the peer port's thread", "lanes_in",
           ("lane/record.c", "lane/siphash.c", "lane/window.c", "gateway/deliver.c"),
           tuple(_records()) + named("peer openings").seeds),
    Native("addresses of clients outside", "comer", ("gateway/comer.c",), _SOCKADDRS, most=300),
    Native("orders to the relay", "relay",
           (*_RELAY, "lane/record.c", "lane/siphash.c", "gateway/comer.c"),
           (*_ORDERS, b"".join(_ORDERS)), most=1024),
]  # fmt: skip
