"""cffi builds gateway/ for the server, which calls it."""

from pathlib import Path

import cffi

HERE = Path(__file__).parent / "gateway"
HEADERS = ("turnstile.h", "door.h")

ffibuilder = cffi.FFI()
for header in HEADERS:
    lines = (HERE / header).read_text().splitlines()
    ffibuilder.cdef("\n".join(line for line in lines if not line.startswith("#")))
ffibuilder.set_source(
    "appswitch._gateway",
    "\n".join(f'#include "gateway/{header}"' for header in HEADERS),
    sources=sorted(f"shim/gateway/{source.name}" for source in HERE.glob("*.c")),
    include_dirs=["shim"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
    extra_link_args=["-pthread"],
)
