"""cffi reads wire.h and relay/join.h for the server, as the compiler does for the rest: one definition, checked by the
compiler.
"""

from pathlib import Path

import cffi

HERE = Path(__file__).parent
HEADERS = ("wire.h", "relay/join.h")

ffibuilder = cffi.FFI()
for header in HEADERS:
    lines = (HERE / header).read_text().splitlines()
    ffibuilder.cdef("\n".join(line for line in lines if not line.startswith("#")))
includes = "\n".join(f'#include "{header}"' for header in HEADERS)
ffibuilder.set_source("appswitch._wire", includes, include_dirs=["shim"])
