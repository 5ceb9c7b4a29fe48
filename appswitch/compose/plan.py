"""What to do next with a project's programs, given what has happened to them.

No I/O and no clock: what has happened is told (`Healthy`, `Ended`, ...), what to do is the answer (`Start`, `Stop`,
...). After each thing told, all is looked at anew:

- Who waits starts once its dependencies fulfil their conditions.
- A dependency that can't fulfil its condition any more, or a program that fails as it starts, ends the whole: then, as
  when a person says so, who runs is stopped once nobody that depends on it runs any more.
- Who has ended starts again as its restart policy says, after a pause that doubles.

What is run on another node isn't started here. It is there once it is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import define, frozen

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


Event = Healthy | Unhealthy | Ended | PauseOver | Served | StartOver | StopWanted | GivenUp | KillWanted


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


class Plan:
    """What has happened, and what follows. node: the one that we are on."""

    def __init__(self, services: Mapping[str, Service], node: str) -> None:
        self._services = services
        self._elsewhere = {name for name, each in services.items() if each.node not in (None, node)}
        self._served = frozenset[str]()
        self._dependents: dict[str, set[str]] = {name: set() for name in services}
        for service in services.values():
            for each in service.dependencies:
                self._dependents[each.service].add(service.name)
        self.standings = {
            Instance(name, number): Standing()
            for name, each in services.items()
            if name not in self._elsewhere
            for number in range(1, each.scale + 1)
        }
        self._start_over = False
        self.stopping = False
        self.failure: str | None = None
        """Why all is stopped, unless a person wanted it."""

    @property
    def started(self) -> bool:
        """Whether nobody waits for others any more."""
        return all(each.phase is not Phase.WAITING for each in self.standings.values())

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
        match event:
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
            return
        restart = self._services[instance.service].restart
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

    def _start(self, instance: Instance) -> Start:
        asked = self._services[instance.service].health is not None
        self.standings[instance].phase = Phase.STARTING if asked else Phase.RUNNING
        return Start(instance)

    def _fail(self, reason: str) -> None:
        self.stopping = True
        self.failure = self.failure or reason

    def _next(self) -> list[Action]:
        waiting = [instance for instance, each in self.standings.items() if each.phase is Phase.WAITING]
        if not self.stopping:  # first: nobody starts when another one can't
            for service in dict.fromkeys(each.service for each in waiting):
                self._look_for_hopeless(self._services[service])
        if self.stopping:
            return list(self._stops())
        return [self._start(each) for each in waiting if self._may_start(self._services[each.service])]

    def _look_for_hopeless(self, service: Service) -> None:
        for dependency in service.dependencies:
            _, hopeless = self._judge(dependency)
            if hopeless and dependency.required:
                self._fail(f"{service.name} can't start: {hopeless}")

    def _may_start(self, service: Service) -> bool:
        """Whether its dependencies are there, or won't ever be and needn't."""
        return all(holds or hopeless for holds, hopeless in map(self._judge, service.dependencies))

    def _judge(self, dependency: Dependency) -> tuple[bool, str]:
        """Whether the condition holds; and why it never will, if so."""
        name = dependency.service
        if name in self._elsewhere:
            return name in self._served, ""
        standings = [(each, self.standings[each]) for each in self._instances(name)]
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
        return [Instance(service, number) for number in range(1, self._services[service].scale + 1)]

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


def _is_ready(standing: Standing) -> bool:
    if standing.phase is Phase.ENDED:
        return standing.status == 0 or standing.was_ready
    return standing.phase in (Phase.HEALTHY, Phase.RUNNING)
