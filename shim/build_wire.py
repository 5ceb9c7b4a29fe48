"""cffi reads wire.h for the server, as the compiler does for the shim: one definition, checked by the compiler."""

from pathlib import Path

import cffi

HEADER = Path(__file__).parent / "wire.h"

ffibuilder = cffi.FFI()
ffibuilder.cdef("\n".join(line for line in HEADER.read_text().splitlines() if not line.startswith("#")))
ffibuilder.set_source("appswitch._wire", '#include "wire.h"', include_dirs=["shim"])
