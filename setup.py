"""Builds the native parts: appswitch/_wire, _gateway and _lanes (cffi), appswitch/libappswitch.so (the preload
library), appswitch/appswitch-tracer (which brings it into programs that can't preload it), and
appswitch/appswitch-relay (a gateway's).

Everything else about the package is in pyproject.toml. The same sources give the same bytes wherever they are built,
and one wheel does for each Python from 3.11 on, since cffi's modules keep to the stable ABI.
"""

from __future__ import annotations

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SHIM, TRACER, RELAY = "appswitch.libappswitch", "appswitch.appswitch-tracer", "appswitch.appswitch-relay"
SUFFIXES = {SHIM: ".so", TRACER: "", RELAY: ""}
HAS_TRACER = platform.machine() == "x86_64"  # shim/tracer/arch.h

# The library is loaded into every program: it imports nothing but errno's place (and weakly dlsym and environ), so it
# is freestanding, without stack protector or thread-local storage (DESIGN 3.2), and keeps its hands off the registers
# that its landing doesn't save (shim/landing/landing.c). It is the first to be initialised, for then calls may
# be trapped (shim/landing/sigsys.c). The tracer is a program without libc, so that LD_PRELOAD doesn't reach it.
COMPILE = (
    "-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fvisibility=hidden"
    " -fno-tree-loop-distribute-patterns -U_FORTIFY_SOURCE -fno-lto -mgeneral-regs-only"
)
LINK = "-nostdlib -Wl,-z,now -Wl,-z,relro -Wl,-z,initfirst" + " -Wl,-e,land" * HAS_TRACER
LINK_TRACER = "-nostdlib -static -no-pie"
COMPILE_RELAY, LINK_RELAY = "-std=gnu11 -O2 -Wall -Wextra -Werror -fvisibility=hidden -fPIE -iquoteshim", "-pie"


class BuildShim(build_ext):
    """The preload library and the programs have plain names: they are no Python modules."""

    def get_ext_filename(self, fullname: str) -> str:
        for name, suffix in SUFFIXES.items():
            if name.endswith(fullname):
                return fullname.replace(".", "/") + suffix
        return super().get_ext_filename(fullname)

    def build_extension(self, ext: Extension) -> None:
        """Python's own linker flags may name a place of the builder's to look for libraries in: not for others.

        A program is no shared object, for which there is no Extension: -shared is left out. Nor does it matter where
        the sources lie.
        """
        linker = self.compiler.linker_so
        self.compiler.linker_so = [word for word in linker if not word.startswith("-Wl,-rpath")]
        ext.extra_compile_args.append(f"-ffile-prefix-map={Path.cwd()}=.")
        if ext.name in (TRACER, RELAY):
            self.compiler.linker_so = [word for word in self.compiler.linker_so if word != "-shared"]
        super().build_extension(ext)
        self.compiler.linker_so = linker

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return [] if ext.name in SUFFIXES else super().get_export_symbols(ext)


def extension(name: str, sources: list[Path], link: str, compile_args: str = COMPILE) -> Extension:
    return Extension(
        name,
        sources=sorted(map(str, sources)),
        depends=sorted(str(path) for path in Path("shim").rglob("*.h")),
        extra_compile_args=compile_args.split(),
        extra_link_args=link.split(),
    )


SHARED = [Path("shim/sys.c"), Path("shim/elf.c")]
FOR_RELAY = [Path("shim/lane/record.c"), Path("shim/lane/siphash.c"), Path("shim/gateway/comer.c")]
SHIM_SOURCES = [*Path("shim").glob("*.c"), *(Path("shim/landing").glob("*.c") if HAS_TRACER else ())]
extensions = [
    extension(SHIM, SHIM_SOURCES, LINK),
    extension(RELAY, [*Path("shim/relay").glob("*.c"), *FOR_RELAY], LINK_RELAY, COMPILE_RELAY),
]
if HAS_TRACER:
    extensions.append(extension(TRACER, [*Path("shim/tracer").glob("*.c"), *SHARED], LINK_TRACER))

setup(
    cffi_modules=[f"shim/build_{name}.py:ffibuilder" for name in ("wire", "gateway", "lanes")],
    ext_modules=extensions,
    cmdclass={"build_ext": BuildShim},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
