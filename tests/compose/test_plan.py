"""What is started and stopped next, whatever happens to the programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appswitch.compose import plan
from appswitch.compose.plan import (
    Change,
    Ended,
    GivenUp,
    Healthy,
    Instance,
    Kill,
    KillWanted,
    PauseOver,
    Phase,
    Plan,
    Served,
    Start,
    StartLater,
    StartOver,
    Stop,
    StopWanted,
    Unhealthy,
    Wanted,
)
from appswitch.compose.project import Dependency, Listens, Restart, Service

DB, APP, WEB, JOB = (Instance(each, 1) for each in ("db", "app", "web", "job"))
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def service(name: str, *dependencies: Dependency, **others: object) -> Service:
    return Service(name, (name,), Path(), dependencies=dependencies, **others)  # type: ignore[arg-type]


def new(*services: Service) -> Plan:
    return Plan({each.name: each for each in services}, "here")


def chain() -> Plan:
    """Web -> app -> db, each once the other is healthy."""
    return new(
        service("web", Dependency("app", "service_healthy")),
        service("app", Dependency("db", "service_healthy")),
        service("db"),
    )


def running_chain() -> Plan:
    made = chain()
    made.begin()
    for each in (DB, APP, WEB):
        made.tell(Healthy(each))
    return made


def test_those_start_that_wait_for_nobody_then_those_that_waited_for_them() -> None:
    made = chain()
    assert made.begin() == [Start(DB)]
    assert not made.started
    assert made.tell(Healthy(DB)) == [Start(APP)]
    assert made.tell(Healthy(APP)) == [Start(WEB)]
    assert made.started
    assert made.unready == [WEB]
    assert made.tell(Healthy(WEB)) == []
    assert made.unready == []


def test_they_stop_in_the_reverse_order() -> None:
    made = running_chain()
    assert made.tell(StopWanted()) == [Stop(WEB)]
    assert made.tell(StopWanted()) == []
    assert made.tell(Ended(WEB, 143, 1)) == [Stop(APP)]
    assert made.tell(Ended(APP, 143, 1)) == [Stop(DB)]
    assert not made.finished
    assert made.tell(Ended(DB, 143, 1)) == []
    assert made.finished
    assert made.failure is None


def test_a_stop_while_starting_starts_nobody_else() -> None:
    made = chain()
    made.begin()
    assert made.tell(StopWanted()) == [Stop(DB)]
    assert made.tell(Healthy(DB)) == []
    made.tell(Ended(DB, 0, 1))
    assert made.finished


def test_a_kill_waits_for_nobody() -> None:
    made = running_chain()
    made.tell(StopWanted())
    assert made.tell(KillWanted()) == [Kill(WEB), Kill(APP), Kill(DB)]
    for each in (DB, WEB, APP):
        assert made.tell(Ended(each, 137, 1)) == []
    assert made.finished


def test_all_instances_of_a_dependency_count() -> None:
    made = new(service("web", Dependency("db", "service_healthy")), service("db", scale=2))
    assert made.begin() == [Start(DB), Start(Instance("db", 2))]
    assert made.tell(Healthy(DB)) == []
    assert made.tell(Healthy(Instance("db", 2))) == [Start(WEB)]


def test_completed_means_all_with_success() -> None:
    made = new(service("web", Dependency("job", "service_completed_successfully")), service("job", health=None))
    assert made.begin() == [Start(JOB)]
    assert made.standings[JOB].phase is Phase.RUNNING
    assert made.tell(Ended(JOB, 0, 1)) == [Start(WEB)]


@pytest.mark.parametrize(
    ("condition", "event", "reason"),
    [
        ("service_healthy", Unhealthy(DB), "web can't start: db-1 is unhealthy"),
        ("service_healthy", Ended(DB, 0, 99), "web can't start: db-1 has ended with status 0"),
        ("service_completed_successfully", Ended(DB, 4, 99), "web can't start: db-1 has ended with status 4"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_a_condition_that_can_t_hold_any_more(condition: str, event: plan.Event, reason: str, required: bool) -> None:
    made = new(service("web", Dependency("db", condition, required)), service("db"), service("app"))  # type: ignore[arg-type]
    made.begin()
    made.tell(Healthy(APP))
    actions = made.tell(event)
    if required:
        assert made.failure == reason
        assert set(actions) == {Stop(APP)} | ({Stop(DB)} if isinstance(event, Unhealthy) else set())
    else:
        assert made.failure is None
        assert actions == [Start(WEB)]


def test_who_fails_as_it_starts_ends_all() -> None:
    made = new(service("web"), service("db"))
    made.begin()
    assert made.tell(Ended(WEB, 1, 0.5)) == [Stop(DB)]
    assert made.failure == "web-1 has ended with status 1 as it started"


@pytest.mark.parametrize("why", ["was healthy", "ran long", "did well", "start is over"])
def test_who_ends_otherwise_ends_alone(why: str) -> None:
    made = new(service("web"), service("db"))
    made.begin()
    if why == "was healthy":
        made.tell(Healthy(WEB))
    if why == "start is over":
        made.tell(StartOver())
    assert made.tell(Ended(WEB, 0 if why == "did well" else 1, plan.SETTLED if why == "ran long" else 0.5)) == []
    assert not made.stopping
    made.tell(Ended(DB, 0, 1))
    assert made.finished


def test_who_waits_gives_up() -> None:
    made = chain()
    made.begin()
    assert made.tell(GivenUp("too slow")) == [Stop(DB)]
    assert made.failure == "too slow"


def test_pauses_double_and_begin_anew_after_a_long_run() -> None:
    made = new(service("web", restart=Restart(True, True)))
    made.begin()
    pauses = []
    for seconds in (0, 0, 0, plan.SETTLED, 0, *[0] * 20):
        (later,) = made.tell(Ended(WEB, 1, seconds))
        assert isinstance(later, StartLater)
        pauses.append(later.seconds)
        assert made.tell(PauseOver(WEB)) == [Start(WEB)]
    assert pauses[:6] == [0.1, 0.2, 0.4, 0.1, 0.2, 0.4]
    assert pauses[-1] == plan.LONGEST_PAUSE
    assert made.standings[WEB].restarts == len(pauses)


@pytest.mark.parametrize(
    ("restart", "status", "again"),
    [
        (Restart(), 0, 0),
        (Restart(False, True), 0, 0),
        (Restart(False, True), 1, 99),
        (Restart(False, True, 2), 1, 2),
        (Restart(True, True), 0, 99),
    ],
)
def test_restarts(restart: Restart, status: int, again: int) -> None:
    made = new(service("web", restart=restart))
    made.begin()
    times = 0
    while times < 99 and made.tell(Ended(WEB, status, 0)):
        made.tell(PauseOver(WEB))
        times += 1
    assert times == again
    assert made.finished == (again < 99)


def test_a_stop_ends_who_waits_to_start_again() -> None:
    made = new(service("web", restart=Restart(True, True)))
    made.begin()
    made.tell(Ended(WEB, 1, 0))
    assert made.tell(StopWanted()) == []
    assert made.finished
    assert made.tell(PauseOver(WEB)) == []


def test_what_another_node_runs_is_there_once_it_is_served() -> None:
    made = new(
        service("web", Dependency("db", "service_healthy")), service("db", node="there"), service("app", node="here")
    )
    assert made.begin() == [Start(APP)]
    assert made.tell(Served(frozenset({"else"}))) == []
    assert made.tell(Served(frozenset({"db"}))) == [Start(WEB)]


@st.composite
def services(draw: st.DrawFn) -> dict[str, Service]:
    """Up to five, each depending on some of those before it."""
    made: dict[str, Service] = {}
    for name in "abcde"[: draw(st.integers(1, 5))]:
        dependencies = []
        for other in made.values():
            if draw(st.booleans()):
                condition = draw(st.sampled_from(CONDITIONS))
                if not (condition == "service_healthy" and other.health is None):
                    dependencies.append(Dependency(other.name, condition, draw(st.booleans())))  # type: ignore[arg-type]
        made[name] = service(
            name,
            *dependencies,
            health=draw(st.sampled_from([None, Listens()])),
            restart=draw(st.sampled_from([Restart(), Restart(False, True, 1), Restart(True, True)])),
            scale=draw(st.integers(0, 2)),
        )
    return made


class Life(RuleBasedStateMachine):
    """Programs start, become healthy, fail and end as they like; a person stops them when they like."""

    @initialize(made=services())
    def begin(self, made: Mapping[str, Service]) -> None:
        self.plan = Plan(made, "here")
        self.running: set[Instance] = set()
        self.pausing: set[Instance] = set()
        self.told_to_stop: set[Instance] = set()
        self.wanted = False
        self.heed(self.plan.begin())

    def heed(self, actions: list[plan.Action]) -> None:
        for action in actions:
            instance = action.instance
            match action:
                case Start():
                    assert instance not in self.running, "it runs already"
                    assert not self.plan.stopping, "all is stopped"
                    assert self.holds(instance) or self.plan.standings[instance].restarts, "a dependency isn't there"
                    self.running.add(instance)
                case StartLater(seconds=seconds):
                    assert instance not in self.running
                    assert plan.FIRST_PAUSE <= seconds <= plan.LONGEST_PAUSE
                    self.pausing.add(instance)
                case Stop():
                    assert instance in self.running - self.told_to_stop
                    if self.plan.stopping:
                        assert not self.dependents(instance.service) & self.running, "somebody needs it still"
                    else:
                        assert self.plan.standings[instance].then in (Change.ANEW, Change.STOPPED)
                    self.told_to_stop.add(instance)
                case Kill():
                    assert instance in self.running
                    self.told_to_stop.add(instance)

    def holds(self, instance: Instance) -> bool:
        for dependency in self.plan.services[instance.service].dependencies:
            if dependency.required:
                for number in range(1, self.plan.services[dependency.service].scale + 1):
                    standing = self.plan.standings[Instance(dependency.service, number)]
                    assert standing.then is None, "it is about to end"
                    wanted = {
                        "service_started": standing.phase is not Phase.WAITING,
                        "service_healthy": standing.phase is Phase.HEALTHY,
                        "service_completed_successfully": standing.phase is Phase.ENDED and standing.status == 0,
                    }
                    if not wanted[dependency.condition]:
                        return False
        return True

    def dependents(self, name: str) -> set[Instance]:
        services = self.plan.services
        depend = {each for each in services if name in [one.service for one in services[each].dependencies]}
        return {each for each in self.plan.standings if each.service in depend}

    def pick(self, data: st.DataObject, among: set[Instance]) -> Instance:
        return data.draw(st.sampled_from(sorted(among, key=str)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), healthy=st.booleans())
    def judge(self, data: st.DataObject, healthy: bool) -> None:
        instance = self.pick(data, self.running)
        self.heed(self.plan.tell(Healthy(instance) if healthy else Unhealthy(instance)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), status=st.sampled_from([0, 0, 1, 143]), seconds=st.sampled_from([0.0, 5.0, 60.0]))
    def end(self, data: st.DataObject, status: int, seconds: float) -> None:
        instance = self.pick(data, self.running)
        self.running.remove(instance)
        self.told_to_stop.discard(instance)
        self.heed(self.plan.tell(Ended(instance, status, seconds)))

    @precondition(lambda self: self.pausing)
    @rule(data=st.data())
    def pause_over(self, data: st.DataObject) -> None:
        instance = self.pick(data, self.pausing)
        self.pausing.remove(instance)
        self.heed(self.plan.tell(PauseOver(instance)))

    @rule(wanted=services(), only=st.booleans())
    def want(self, wanted: Mapping[str, Service], only: bool) -> None:
        before = set(self.plan.standings)
        self.heed(self.plan.tell(Wanted(wanted, () if only else None)))
        if not self.plan.stopping:
            there = {each for each, known in self.plan.standings.items() if known.then is not Change.STOPPED}
            asked = {Instance(name, n) for name, each in wanted.items() for n in range(1, each.scale + 1)}
            assert asked <= there
            assert {each.service for each in there - asked}.isdisjoint(wanted), "too many of a service"
            assert not only or there == asked
            assert set(self.plan.changes) <= asked | before

    @rule()
    def start_over(self) -> None:
        self.heed(self.plan.tell(StartOver()))

    @precondition(lambda self: self.running)
    @rule(kill=st.sampled_from([False, False, True]))
    def stop(self, kill: bool) -> None:
        self.wanted = True
        self.heed(self.plan.tell(KillWanted() if kill else StopWanted()))
        if kill:
            assert self.told_to_stop == self.running

    @invariant()
    def it_knows_who_runs(self) -> None:
        runs = {each for each, known in self.plan.standings.items() if known.phase in plan.RUNS | {Phase.STOPPING}}
        assert runs == self.running
        assert self.plan.finished <= (not self.running)
        assert self.plan.stopping == (self.wanted or self.plan.failure is not None)

    def teardown(self) -> None:
        """Told to stop, all ends, as long as each program that is told to does."""
        if not hasattr(self, "plan"):
            return
        self.heed(self.plan.tell(StopWanted()))
        while self.running:
            assert self.told_to_stop, "nobody is told to stop, and some run"
            instance = min(self.told_to_stop, key=str)
            self.told_to_stop.remove(instance)
            self.running.remove(instance)
            self.heed(self.plan.tell(Ended(instance, 143, 1)))
        assert self.plan.finished


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, deadline=None)


def wanted(made: Plan, *services: Service, only: bool = False) -> list[plan.Action]:
    return made.tell(Wanted({each.name: each for each in services}, () if only else None))


def test_what_is_there_and_as_wanted_stays() -> None:
    made = running_chain()
    assert wanted(made, *chain().services.values()) == []
    assert set(made.changes.values()) == {Change.LEFT}
    assert made.started
    assert made.unready == []


def test_what_is_missing_starts_and_what_is_too_much_ends() -> None:
    made = new(service("web", scale=2))
    made.begin()
    second = Instance("web", 2)
    assert wanted(made, service("web"), service("db")) == [Stop(second), Start(DB)]
    assert made.changes == {WEB: Change.LEFT, second: Change.STOPPED, DB: Change.STARTED}
    made.tell(Ended(second, 143, 1))
    assert second not in made.standings
    assert wanted(made, service("web", scale=2), service("db")) == [Start(second)]


def test_what_has_ended_starts_again() -> None:
    made = new(service("job", health=None), service("web"))
    made.begin()
    made.tell(Ended(JOB, 0, 1))
    assert wanted(made, service("job", health=None), service("web")) == [Start(JOB)]
    assert made.changes == {JOB: Change.STARTED, WEB: Change.LEFT}


@pytest.mark.parametrize("restart", [False, True])
def test_what_has_changed_starts_anew_after_what_it_waits_for(restart: bool) -> None:
    dependency = Dependency("db", "service_healthy", restart=restart)
    made = new(service("web", dependency), service("db"))
    made.begin()
    for each in (DB, WEB):
        made.tell(Healthy(each))
    changed = service("db", environment={"A": "1"})
    stops = wanted(made, service("web", dependency), changed)
    assert stops == [Stop(WEB), Stop(DB)] if restart else stops == [Stop(DB)]
    assert not made.started
    if restart:
        assert made.tell(Ended(WEB, 143, 60)) == [], "the db isn't there"
    assert made.tell(Ended(DB, 143, 60)) == [Start(DB)]
    assert made.tell(Healthy(DB)) == ([Start(WEB)] if restart else [])
    assert made.started


def test_others_stay_unless_only_these_are_wanted() -> None:
    made = running_chain()
    assert wanted(made, service("db")) == []
    assert made.changes == {DB: Change.LEFT}
    assert wanted(made, service("db"), only=True) == [Stop(WEB), Stop(APP)]
    for each in (WEB, APP):
        made.tell(Ended(each, 143, 60))
    assert set(made.standings) == {DB}


def test_who_fails_then_fails_alone() -> None:
    made = new(service("db"))
    made.begin()
    made.tell(Healthy(DB))
    depends = service("web", Dependency("app", "service_started")), service("app", Dependency("job", CONDITIONS[2]))  # type: ignore[arg-type]
    assert wanted(made, service("db"), service("job"), *depends) == [Start(JOB)]
    assert made.tell(Ended(JOB, 1, 0.1)) == []
    assert made.failure is None
    assert made.standings[APP].hopeless == "job-1 has ended with status 1"
    assert made.standings[WEB].hopeless == f"app-1 can't start: {made.standings[APP].hopeless}"
    assert made.unready == [JOB, WEB, APP]
    assert made.standings[DB].phase is Phase.HEALTHY


def test_nothing_new_while_all_is_stopped() -> None:
    made = running_chain()
    made.tell(StopWanted())
    assert wanted(made, service("job")) == []
    assert JOB not in made.standings


@given(services(), services(), st.booleans())
def test_from_one_set_of_services_to_another(before: dict[str, Service], after: dict[str, Service], only: bool) -> None:
    """Nobody fails: then what is wanted is there, once."""
    made = Plan(before, "here")
    running: set[Instance] = set()
    todo = made.begin()
    for actions in (todo, None):
        todo = made.tell(Wanted(after, () if only else None)) if actions is None else actions
        while todo:
            action = todo.pop()
            if isinstance(action, Start):
                assert action.instance not in running
                running.add(action.instance)
                todo += made.tell(Healthy(action.instance))
            elif isinstance(action, Stop):
                running.remove(action.instance)
                todo += made.tell(Ended(action.instance, 143, 60))
    asked = {Instance(name, n) for name, each in after.items() for n in range(1, each.scale + 1)}
    assert asked <= set(made.standings)
    assert not only or set(made.standings) == asked
    assert running == {each for each, known in made.standings.items() if known.phase is Phase.HEALTHY}


@given(services())
def test_if_all_goes_well_all_gets_ready(made: dict[str, Service]) -> None:
    """Those that are waited for to complete do; the others become healthy."""
    complete = {each.service for one in made.values() for each in one.dependencies if each.condition == CONDITIONS[2]}
    healthy = {each.service for one in made.values() for each in one.dependencies if each.condition == CONDITIONS[1]}
    made = {
        name: one if name not in complete else service(name, *one.dependencies, scale=one.scale)
        for name, one in made.items()
        if name not in complete & healthy
    }
    made = {
        name: service(
            name, *[each for each in one.dependencies if each.service in made], scale=one.scale, health=one.health
        )
        for name, one in made.items()
    }
    tried = Plan(made, "here")
    todo = tried.begin()
    while todo:
        action = todo.pop()
        assert isinstance(action, Start)
        name = action.instance.service
        done = Ended(action.instance, 0, 1) if name in complete else Healthy(action.instance)
        todo += tried.tell(done)
    assert tried.started
    assert tried.unready == []
    assert tried.failure is None
