"""Builds the two native parts: appswitch/_wire (cffi) and appswitch/libappswitch.so (the preload library).

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SHIM = "appswitch.libappswitch"

# The library is loaded into every program: it imports nothing but errno's place (and weakly dlsym and environ), so it
# is freestanding, without stack protector or thread-local storage (DESIGN 3.2).
COMPILE = (
    "-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fvisibility=hidden"
    " -fno-tree-loop-distribute-patterns -U_FORTIFY_SOURCE -fno-lto"
)
LINK = "-nostdlib -Wl,-z,now -Wl,-z,relro"


class BuildShim(build_ext):
    """The preload library has a plain name: it is not a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.endswith("libappswitch"):
            return fullname.replace(".", "/") + ".so"
        return super().get_ext_filename(fullname)

    def build_extension(self, ext: Extension) -> None:
        """Python's own linker flags may name a place of the builder's to look for libraries in: not for the shim."""
        linker = self.compiler.linker_so
        if ext.name == SHIM:
            self.compiler.linker_so = [word for word in linker if not word.startswith("-Wl,-rpath")]
        super().build_extension(ext)
        self.compiler.linker_so = linker

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return [] if ext.name == SHIM else super().get_export_symbols(ext)


setup(
    cffi_modules=["shim/build_wire.py:ffibuilder"],
    ext_modules=[
        Extension(
            SHIM,
            sources=sorted(str(path) for path in Path("shim").glob("*.c")),
            depends=sorted(str(path) for path in Path("shim").glob("*.h")),
            extra_compile_args=COMPILE.split(),
            extra_link_args=LINK.split(),
        )
    ],
    cmdclass={"build_ext": BuildShim},
)
