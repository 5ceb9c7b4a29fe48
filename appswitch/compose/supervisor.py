"""The process that runs a project: it does what the plan says, and tells the plan what happens.

One nursery holds everything: a task a running program, one that hears the trap handler, one a connection to the socket.
Whatever ends the supervisor, be it SIGKILL, ends the programs: the kernel ties them to it (program.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from functools import partial
from typing import Any

import trio
from attrs import evolve

from appswitch.compose import plan
from appswitch.compose.home import Home
from appswitch.compose.listening import Known, look, watch
from appswitch.compose.logbook import Line, LogBook
from appswitch.compose.plan import Instance, Plan
from appswitch.compose.probe import probe
from appswitch.compose.program import Program
from appswitch.compose.project import Check, Listens, Project
from appswitch.errors import AppSwitchError

NOT_FOUND, NOT_EXECUTABLE = 127, 126
SAY_AFTER = 5.0
"""Seconds of waiting until somebody listens that need no word."""
REST_WITHIN = 1.0
"""Seconds that the last words of a program may take once it has ended."""
READ_WITHIN = 10.0
"""Seconds that those who read what was said have for the rest, when all has ended."""


class Supervisor:
    """Of one run of a project. background: it stays when all has ended, until it is told to go."""

    def __init__(self, project: Project, home: Home, background: bool) -> None:
        self._project = project
        self._home = home
        self._background = background
        self._programs: dict[Instance, Program] = {}
        self._known: Known | None = None
        self.starting = background
        """Whether somebody waits for the start to be over."""
        self._changed = trio.Event()
        self._over = trio.Event()
        self.logbook = LogBook(home.log)
        self.plan: Plan

    async def run(self, *tasks: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Until all has ended. tasks: beside it, cancelled at the end."""
        known = await look(self._home.trap)
        self.plan = Plan(self._project.services, known.node)
        if self.plan.elsewhere and not self.plan.standings:
            nodes = ", ".join(sorted(set(self.plan.elsewhere.values())))
            reason = f"this is node {known.node}, and all of project {self._project.name} is run by others: {nodes}"
            raise AppSwitchError("elsewhere", reason, f"run `appswitch compose up` on {nodes}")
        self._look_around(known)
        try:
            async with trio.open_nursery() as self._nursery:
                for each in tasks:
                    self._nursery.start_soon(each, self)
                self._nursery.start_soon(self._hear)
                self._do(self.plan.begin())
                await self._over.wait()
                self.logbook.close()
                with trio.move_on_after(READ_WITHIN):
                    await self.logbook.until_read()
                self._nursery.cancel_scope.cancel()
        finally:
            self.logbook.close()

    def _look_around(self, known: Known) -> None:
        """Says what other hosts have to do with it, and don't yet."""
        if not known.has_gateway and any(each.published for each in self.plan.services.values()):
            self.note("no host is a gateway, so nobody outside reaches `ports`: `appswitch serve --gateway` is one")
        for name, node in self.plan.elsewhere.items():
            there = "run `appswitch compose up` there, too" if node in known.nodes else "there is no such node yet"
            self.note(f"{name} is run by node {node}, and this is {known.node}: {there}")

    async def take_up(
        self, project: Project, keep: Collection[str] | None, ready: bool, patience: float | None
    ) -> dict[str, str]:
        """Changes to what is wanted now; what has become of each program, once all is started (`ready`: healthy).

        keep: of other services, as `Wanted`; patience: seconds. AppSwitchError: it can't be, or something has failed;
        what has been started stays.
        """
        self._check(project)
        known = await look(self._home.trap)
        self._tell(plan.Wanted(project.services, keep))
        self._project = evolve(project, services=self.plan.services)
        self._look_around(known)
        changes = dict(self.plan.changes)
        with trio.move_on_after(math.inf if patience is None else patience):
            while not self.plan.stopping and not (self.plan.started and not (ready and self._still_to_come(changes))):
                await self.changed()
        if self.plan.stopping:
            raise AppSwitchError("start-failed", "the project was stopped meanwhile")
        bad = [f"{each} {_why(standing)}" for each, standing in self._bad(changes)]
        if not bad and ready and self._still_to_come(changes):
            bad = [f"not ready after {patience:g} s: {', '.join(map(str, self._still_to_come(changes)))}"]
        if not bad and not self.plan.started:
            bad = [f"not all is started after {patience:g} s"]
        if bad:
            raise AppSwitchError("start-failed", "; ".join(bad), "`appswitch compose logs` shows what programs said")
        return {str(each): change.value for each, change in changes.items()}

    def _check(self, project: Project) -> None:
        if self.starting:
            hint = "wait until the `up` that starts it is through"
            raise AppSwitchError("starting", f"project {self._project.name} is still being started", hint)
        for key in ("policy", "egress"):
            if getattr(project, key) != getattr(self._project, key):
                reason = f"x-appswitch.{key} is of the trap handler, which runs already"
                raise AppSwitchError("has-policy", reason, "`appswitch compose down`, then `up`")

    def _bad(self, among: Collection[Instance]) -> list[tuple[Instance, plan.Standing]]:
        """Those that have ended as they shouldn't."""
        ended = [(each, self.plan.standings[each]) for each in self.plan.unready if each in among]
        return [(each, standing) for each, standing in ended if standing.phase is plan.Phase.ENDED]

    def _still_to_come(self, among: Collection[Instance]) -> list[Instance]:
        bad = {each for each, _ in self._bad(among)}
        return [each for each in self.plan.unready if each in among and each not in bad]

    @property
    def failed(self) -> bool:
        """Whether it failed as a whole, or a program of it, nobody having told it to end."""
        ended_badly = any(each.status for each in self.plan.standings.values())
        return self.plan.failure is not None or (ended_badly and not self.plan.stopping)

    @property
    def services(self) -> Collection[str]:
        """Their names."""
        return self.plan.services.keys()

    async def changed(self) -> None:
        """Returns once something has happened."""
        await self._changed.wait()

    def stop(self, kill: bool = False) -> None:
        """Ends all, in the reverse order of its start."""
        self._tell(plan.KillWanted() if kill else plan.StopWanted())

    def start_is_over(self) -> None:
        """Who fails from now on fails alone."""
        self.starting = False
        self._tell(plan.StartOver())

    def give_up(self, reason: str) -> None:
        """Ends all, for the start isn't what it should be."""
        self._tell(plan.GivenUp(reason))

    def note(self, text: str) -> None:
        """Something about the whole, for the log."""
        self._note(None, text)

    def _tell(self, event: plan.Event) -> None:
        failure = self.plan.failure
        self._do(self.plan.tell(event))
        if self.plan.failure != failure:
            self._note(None, f"{self.plan.failure}: stopping all")

    def _do(self, actions: list[plan.Action]) -> None:
        for action in actions:
            match action:
                case plan.Start(instance):
                    self._nursery.start_soon(self._run, instance)
                case plan.StartLater(instance, seconds):
                    self._note(instance, f"starts again in {seconds:g} s")
                    self._nursery.start_soon(self._pause, instance, seconds)
                case plan.Stop(instance):
                    self._nursery.start_soon(self._stop, instance)
                case plan.Kill(instance) if instance in self._programs:
                    self._programs[instance].kill()
        self._changed.set()
        self._changed = trio.Event()
        if self.plan.finished and (self.plan.stopping or not self._background):
            self._over.set()

    async def _run(self, instance: Instance) -> None:
        """One program, from its start to its end."""
        if self.plan.standings[instance].phase is plan.Phase.STOPPING:  # since it was told to start, just now
            self._tell(plan.Ended(instance, 0, 0.0))
            return
        try:
            program = Program(self.plan.services[instance.service], self._project.name, self._home.trap)
        except OSError as error:
            self._note(instance, f"can't be started: {error.strerror}: {error.filename}")
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            self._tell(plan.Ended(instance, status, 0.0))
            return
        self._programs[instance] = program
        try:
            async with trio.open_nursery() as nursery:
                said = trio.Event()
                nursery.start_soon(self._record, instance, program, said)
                nursery.start_soon(self._watch_health, instance, program)
                status = await program.ended()
                with trio.move_on_after(REST_WITHIN):
                    await said.wait()
                nursery.cancel_scope.cancel()
        finally:
            age = program.age
            del self._programs[instance]
            program.close()
        self._note(instance, f"exited with status {status}")
        self._tell(plan.Ended(instance, status, age))

    async def _pause(self, instance: Instance, seconds: float) -> None:
        await trio.sleep(seconds)
        self._tell(plan.PauseOver(instance))

    async def _stop(self, instance: Instance) -> None:
        program = self._programs.get(instance)
        if program is None:
            return
        program.signal(program.service.stop_signal)
        with trio.move_on_after(program.service.grace):
            while self._programs.get(instance) is program:
                await self.changed()
        if self._programs.get(instance) is program:
            self._note(instance, f"is killed: it hasn't ended {program.service.grace:g} s after it was told to")
            program.kill()

    async def _record(self, instance: Instance, program: Program, said: trio.Event) -> None:
        async with aclosing(program.lines()) as pieces:
            async for lines in pieces:
                now = time.time()
                self.logbook.add([Line(now, instance.service, str(instance), each) for each in lines])
        said.set()

    def _note(self, instance: Instance | None, text: str) -> None:
        line = Line(time.time(), instance.service if instance else "", str(instance or ""), text, note=True)
        self.logbook.add([line])

    async def _watch_health(self, instance: Instance, program: Program) -> None:
        match program.service.health:
            case Check() as check:
                verdict = partial(self._judge, instance)
                await probe(program, check, self._project.name, self._home.trap, verdict)
            case Listens() as wanted:
                self._compare(instance, program, wanted)
                await trio.sleep(SAY_AFTER)
                if self.plan.standings[instance].phase is plan.Phase.STARTING:
                    where = ", ".join(f"{port}/{protocol}" for port, protocol in sorted(wanted.endpoints))
                    hint = "" if where else "; `healthcheck: {disable: true}` if it never does"
                    self._note(instance, f"doesn't listen{f' on {where}' if where else ''} yet{hint}")

    async def _judge(self, instance: Instance, healthy: bool, said: str) -> None:
        if not healthy:
            self._note(instance, f"is unhealthy{f': {said}' if said else ''}")
        self._tell(plan.Healthy(instance) if healthy else plan.Unhealthy(instance))

    async def _hear(self) -> None:
        async with aclosing(watch(self._home.trap, lambda: bool(self.plan.elsewhere))) as changes:
            async for known in changes:
                self._known = known
                self._tell(plan.Served(known.names))
                for instance, program in list(self._programs.items()):
                    if isinstance(program.service.health, Listens):
                        self._compare(instance, program, program.service.health)

    def _compare(self, instance: Instance, program: Program, wanted: Listens) -> None:
        phase = self.plan.standings[instance].phase
        listens = self._known is not None and self._known.fulfils(program.pid, wanted)
        if listens and phase in (plan.Phase.STARTING, plan.Phase.UNHEALTHY):
            self._tell(plan.Healthy(instance))
        elif not listens and phase is plan.Phase.HEALTHY:
            self._tell(plan.Unhealthy(instance))

    def rows(self) -> list[dict[str, Any]]:
        """What `compose ps` shows."""
        return [self._row(instance, standing) for instance, standing in self.plan.standings.items()]

    def _row(self, instance: Instance, standing: plan.Standing) -> dict[str, Any]:
        program = self._programs.get(instance)
        endpoints = self._known.endpoints.get(program.pid, ()) if self._known and program else ()
        exposed = self._known.exposed.get(program.pid, ()) if self._known and program else ()
        return {
            "name": str(instance),
            "service": instance.service,
            "state": standing.phase.value,
            "pid": program.program_pid if program else None,
            "started": program.started_at if program else None,
            "listens": [f"{port}/{protocol}" for port, protocol in sorted(endpoints)],
            "exposed": sorted(exposed),
            "restarts": standing.restarts,
            "status": standing.status,
            "command": list((program.service if program else self.plan.services[instance.service]).command),
        }


def _why(standing: plan.Standing) -> str:
    return f"can't start: {standing.hopeless}" if standing.hopeless else f"has ended with status {standing.status}"
