"""cffi builds lane/ for the server, which calls it, and reads what that says to a relay of its doors."""

from pathlib import Path

import cffi

HERE = Path(__file__).parent
HEADERS = (
    "wire.h",
    "lane/lane.h",
    "lane/siphash.h",
    "lane/window.h",
    "lane/lanes_in.h",
    "relay/doors.h",
    "lane/record.h",
)
SOURCES = ("lane/lanes_in.c", "gateway/deliver.c", "lane/record.c", "lane/siphash.c", "lane/window.c")

ffibuilder = cffi.FFI()
for header in HEADERS:
    lines = (HERE / header).read_text().splitlines()
    ffibuilder.cdef("\n".join(line for line in lines if not line.startswith("#")))
ffibuilder.set_source(
    "appswitch._lanes",
    "\n".join(f'#include "{header}"' for header in HEADERS),
    sources=[f"shim/{source}" for source in SOURCES],
    include_dirs=["shim"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
)
