"""What to do next with a project's programs, given what has happened to them.

No I/O and no clock: what has happened is told (`Healthy`, `Ended`, ...), what to do is the answer (`Start`, `Stop`,
...). After each thing told, all is looked at anew:

- Who waits starts once its dependencies fulfil their conditions.
- A dependency that can't fulfil its condition any more, or a program that fails as it starts, ends the whole: then, as
  when a person says so, who runs is stopped once nobody that depends on it runs any more.
- Who has ended starts again as its restart policy says, after a pause that doubles.
- When other services are wanted (`Wanted`), what is there and as wanted stays; what has changed is stopped and starts
  anew; what is missing, or has ended, starts.

What is run on another node isn't started here. It is there once it is served.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum

from attrs import define, evolve, frozen

from appswitch.compose.project import Dependency, Service

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
"""Seconds before a program is started again; as Docker has them."""
SETTLED = 10.0
"""Seconds that a program must run for its next pause to be the first again, and its end not to be that of the start."""


@frozen
class Instance:
    """One of a service's programs; the first has number 1."""

    service: str
    number: int

    def __str__(self) -> str:
        return f"{self.service}-{self.number}"


class Phase(Enum):
    """Where an instance stands."""

    WAITING = "waiting"
    """For its dependencies."""
    STARTING = "starting"
    """It runs, and nobody knows whether it is healthy."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    RUNNING = "running"
    """Nobody asks about its health."""
    RESTARTING = "restarting"
    """It has ended; after a pause it starts again."""
    STOPPING = "stopping"
    ENDED = "exited"


RUNS = {Phase.STARTING, Phase.HEALTHY, Phase.UNHEALTHY, Phase.RUNNING}


@frozen
class Healthy:
    """It does what it should."""

    instance: Instance


@frozen
class Unhealthy:
    """It doesn't, or no longer."""

    instance: Instance


@frozen
class Ended:
    """status: as a shell has it; seconds: for how long it ran."""

    instance: Instance
    status: int
    seconds: float


@frozen
class PauseOver:
    """The pause that StartLater asked for."""

    instance: Instance


@frozen
class Served:
    """What is run on other nodes: those services that are served."""

    services: frozenset[str]


@frozen
class StartOver:
    """Whoever waited for the start has gone on: who fails from now on fails alone."""


@frozen
class StopWanted:
    """By a person."""


@frozen
class GivenUp:
    """By whoever waits for the start to be over."""

    reason: str


@frozen
class KillWanted:
    """By a person who won't wait."""


@frozen
class Wanted:
    """By a person: these services. keep: of the others that there are, these stay; None: all."""

    services: Mapping[str, Service]
    keep: Collection[str] | None = None


Event = Healthy | Unhealthy | Ended | PauseOver | Served | StartOver | StopWanted | GivenUp | KillWanted | Wanted


class Change(Enum):
    """What `Wanted` means for an instance."""

    LEFT = "as it was"
    STARTED = "started"
    ANEW = "started anew"
    STOPPED = "stopped"


@frozen
class Start:
    """Run its program."""

    instance: Instance


@frozen
class StartLater:
    """Say PauseOver after some seconds."""

    instance: Instance
    seconds: float


@frozen
class Stop:
    """Tell it to end; kill it when it takes longer than its service allows."""

    instance: Instance


@frozen
class Kill:
    """Kill it."""

    instance: Instance


Action = Start | StartLater | Stop | Kill


@define
class Standing:
    """What is known of an instance. status: of its last end; restarts: in all; pause: before the next one, seconds."""

    phase: Phase = Phase.WAITING
    status: int | None = None
    restarts: int = 0
    pause: float = FIRST_PAUSE
    was_ready: bool = False
    then: Change | None = None
    """What comes after its end: ANEW, or STOPPED: it is forgotten."""
    hopeless: str = ""
    """Why it doesn't start."""


class Plan:
    """What has happened, and what follows. node: the one that we are on."""

    def __init__(self, services: Mapping[str, Service], node: str) -> None:
        self._node = node
        self._set_services(services)
        self._served = frozenset[str]()
        self.standings = {
            each: Standing() for name in services if name not in self.elsewhere for each in self._instances(name)
        }
        self._start_over = False
        self.stopping = False
        self.failure: str | None = None
        """Why all is stopped, unless a person wanted it."""
        self.changes: dict[Instance, Change] = {}
        """What the last `Wanted` came to."""

    def _set_services(self, services: Mapping[str, Service]) -> None:
        self.services = services
        self.elsewhere = {
            name: each.node for name, each in services.items() if each.node is not None and each.node != self._node
        }
        """Services that other nodes run -> which."""
        self._dependents: dict[str, set[str]] = {name: set() for name in services}
        for service in services.values():
            for each in service.dependencies:
                self._dependents[each.service].add(service.name)

    @property
    def started(self) -> bool:
        """Whether nobody waits for others any more, nor ends to start anew."""
        return all(each.phase is not Phase.WAITING and each.then is None for each in self.standings.values())

    @property
    def unready(self) -> list[Instance]:
        """Who isn't ready yet: neither healthy, nor at an end that is a good one."""
        return [instance for instance, each in self.standings.items() if not _is_ready(each)]

    @property
    def finished(self) -> bool:
        """Whether nothing runs, and nothing will."""
        return all(each.phase is Phase.ENDED for each in self.standings.values())

    def begin(self) -> list[Action]:
        """What to do first."""
        return self._next()

    def tell(self, event: Event) -> list[Action]:
        """What to do now that this has happened. What comes too late, of one that has ended, changes nothing."""
        actions: list[Action] = []
        if isinstance(event, (Healthy, Unhealthy, Ended, PauseOver)) and event.instance not in self.standings:
            return []
        match event:
            case Wanted(services, keep) if not self.stopping:
                actions += self._adopt(services, keep)
            case Healthy(instance) if self.standings[instance].phase in RUNS:
                self.standings[instance].phase = Phase.HEALTHY
                self.standings[instance].was_ready = True
            case Unhealthy(instance) if self.standings[instance].phase in RUNS:
                self.standings[instance].phase = Phase.UNHEALTHY
            case Ended(instance, status, seconds):
                actions += self._end(instance, status, seconds)
            case PauseOver(instance) if self.standings[instance].phase is Phase.RESTARTING:
                self.standings[instance].restarts += 1
                actions.append(self._start(instance))
            case Served(services):
                self._served = services
            case StartOver():
                self._start_over = True
            case StopWanted():
                self.stopping = True
            case GivenUp(reason):
                self._fail(reason)
            case KillWanted():
                self.stopping = True
                for instance, standing in self.standings.items():
                    if standing.phase in RUNS | {Phase.STOPPING}:
                        standing.phase = Phase.STOPPING
                        actions.append(Kill(instance))
        return actions + self._next()

    def _end(self, instance: Instance, status: int, seconds: float) -> Iterable[Action]:
        standing = self.standings[instance]
        standing.status = status
        if standing.phase is Phase.STOPPING or self.stopping:
            standing.phase = Phase.ENDED
            if standing.then is Change.STOPPED:
                del self.standings[instance]
            elif standing.then is Change.ANEW and not self.stopping:
                self.standings[instance] = Standing()
            return
        restart = self.services[instance.service].restart
        wanted = restart.after_failure if status else restart.after_success
        if wanted and (restart.most is None or standing.restarts < restart.most):
            standing.phase = Phase.RESTARTING
            pause = FIRST_PAUSE if seconds >= SETTLED else standing.pause
            standing.pause = min(2 * pause, LONGEST_PAUSE)
            yield StartLater(instance, pause)
            return
        standing.phase = Phase.ENDED
        if status and not standing.was_ready and seconds < SETTLED and not self._start_over:
            self._fail(f"{instance} has ended with status {status} as it started")

    def _adopt(self, wanted: Mapping[str, Service], keep: Collection[str] | None) -> Iterable[Action]:
        """From now on who fails as it starts fails alone: others were there before."""
        self._start_over = True
        changed = _changed(self.services, wanted)
        others = {
            name: each for name, each in self.services.items() if name not in wanted and (keep is None or name in keep)
        }
        self._set_services(_without_lost_dependencies({**others, **wanted}))
        self.changes = {}
        here = [each for name in self.services if name not in self.elsewhere for each in self._instances(name)]
        for instance, standing in list(self.standings.items()):
            if instance not in here:
                change = Change.STOPPED
            elif instance.service in changed or (standing.then is not None and instance.service in wanted):
                change = Change.ANEW
            elif instance.service in wanted and standing.phase is Phase.ENDED:
                change = Change.STARTED
            else:
                change = Change.LEFT
            if instance.service in wanted or change is Change.STOPPED:
                self.changes[instance] = change
            yield from self._change(instance, standing, change)
        for instance in here:
            if instance not in self.standings:
                self.standings[instance] = Standing()
                self.changes[instance] = Change.STARTED

    def _change(self, instance: Instance, standing: Standing, change: Change) -> Iterable[Action]:
        if change is Change.LEFT:
            return
        if standing.phase in RUNS:
            standing.phase = Phase.STOPPING
            yield Stop(instance)
        if standing.phase is Phase.STOPPING:
            standing.then = change
        elif change is Change.STOPPED:
            del self.standings[instance]
        else:
            self.standings[instance] = Standing()

    def _start(self, instance: Instance) -> Start:
        asked = self.services[instance.service].health is not None
        self.standings[instance].phase = Phase.STARTING if asked else Phase.RUNNING
        return Start(instance)

    def _fail(self, reason: str) -> None:
        self.stopping = True
        self.failure = self.failure or reason

    def _next(self) -> list[Action]:
        while not self.stopping:  # first: nobody starts when another one can't
            waiting = self._waiting()
            for service in dict.fromkeys(each.service for each in waiting):
                self._look_for_hopeless(self.services[service])
            if self._waiting() == waiting:
                break
        if self.stopping:
            return list(self._stops())
        return [self._start(each) for each in self._waiting() if self._may_start(self.services[each.service])]

    def _waiting(self) -> list[Instance]:
        return [instance for instance, each in self.standings.items() if each.phase is Phase.WAITING]

    def _look_for_hopeless(self, service: Service) -> None:
        """Ends all, or, once the start is over, it alone."""
        for dependency in service.dependencies:
            _, hopeless = self._judge(dependency)
            if not hopeless or not dependency.required:
                continue
            if not self._start_over:
                self._fail(f"{service.name} can't start: {hopeless}")
                continue
            for instance in self._waiting():
                if instance.service == service.name:
                    standing = self.standings[instance]
                    standing.phase, standing.hopeless = Phase.ENDED, hopeless

    def _may_start(self, service: Service) -> bool:
        """Whether its dependencies are there, or won't ever be and needn't."""
        return all(holds or hopeless for holds, hopeless in map(self._judge, service.dependencies))

    def _judge(self, dependency: Dependency) -> tuple[bool, str]:
        """Whether the condition holds; and why it never will, if so."""
        name = dependency.service
        if name in self.elsewhere:
            return name in self._served, ""
        standings = [(each, self.standings[each]) for each in self._instances(name)]
        if any(each.then is not None for _, each in standings):  # it ends, and starts anew
            return False, ""
        for instance, each in standings:
            if each.hopeless:
                return False, f"{instance} can't start: {each.hopeless}"
        if dependency.condition == "service_started":
            return all(each.phase is not Phase.WAITING for _, each in standings), ""
        healthy = dependency.condition == "service_healthy"
        for instance, each in standings:
            if healthy and each.phase is Phase.UNHEALTHY:
                return False, f"{instance} is unhealthy"
            if each.phase is Phase.ENDED and (healthy or each.status):
                return False, f"{instance} has ended with status {each.status}"
        return all(each.phase is (Phase.HEALTHY if healthy else Phase.ENDED) for _, each in standings), ""

    def _instances(self, service: str) -> list[Instance]:
        return [Instance(service, number) for number in range(1, self.services[service].scale + 1)]

    def _stops(self) -> Iterable[Action]:
        """Ends those that don't run, and stops those that do and have no dependents that do."""
        busy = set()
        for instance, standing in self.standings.items():
            if standing.phase in (Phase.WAITING, Phase.RESTARTING):
                standing.phase = Phase.ENDED
            elif standing.phase is not Phase.ENDED:
                busy.add(instance.service)
        for instance, standing in self.standings.items():
            if standing.phase in RUNS and not self._dependents[instance.service] & busy:
                standing.phase = Phase.STOPPING
                yield Stop(instance)


def _changed(old: Mapping[str, Service], new: Mapping[str, Service]) -> set[str]:
    """Services whose programs have to start anew; so have those that depend on them, where they say `restart`."""
    changed = {name for name in new if name in old and _runs_otherwise(old[name], new[name])}
    while True:
        more = {
            name
            for name, each in new.items()
            if name in old and any(one.restart and one.service in changed for one in each.dependencies)
        }
        if more <= changed:
            return changed
        changed |= more


def _runs_otherwise(old: Service, new: Service) -> bool:
    """How many there are, and after whom they start, is nothing to a program that runs."""
    return old != evolve(new, scale=old.scale, dependencies=old.dependencies, profiles=old.profiles)


def _without_lost_dependencies(services: Mapping[str, Service]) -> dict[str, Service]:
    """Of those that stay though the file has them no more; what they depended on may be gone."""
    return {
        name: evolve(each, dependencies=tuple(one for one in each.dependencies if one.service in services))
        for name, each in services.items()
    }


def _is_ready(standing: Standing) -> bool:
    if standing.phase is Phase.ENDED:
        return not standing.hopeless and (standing.status == 0 or standing.was_ready)
    return standing.phase in (Phase.HEALTHY, Phase.RUNNING)
