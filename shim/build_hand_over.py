"""cffi builds gateway/hand_over.c for the server, which calls it."""

from pathlib import Path

import cffi

HEADER = Path(__file__).parent / "gateway" / "hand_over.h"

ffibuilder = cffi.FFI()
ffibuilder.cdef("\n".join(line for line in HEADER.read_text().splitlines() if not line.startswith("#")))
ffibuilder.set_source(
    "appswitch._hand_over",
    '#include "gateway/hand_over.h"',
    sources=["shim/gateway/hand_over.c", "shim/gateway/deliver.c"],
    include_dirs=["shim"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
)
