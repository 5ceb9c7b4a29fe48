"""Which instance a connection goes to."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core import balance
from appswitch.core.balance import Balancer, by_connections, check_tags
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import App, AppRecord, Listener, ListenerRecord, Tag

WEIGHTS = st.lists(st.integers(1, 256), min_size=1, max_size=30)


class World:
    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.balancer = Balancer(self.table)

    def instance(self, weight: int | None = None, sockets: int = 1, *tags: Tag) -> list[Listener]:
        """Those of a new app."""
        if weight is not None:
            tags = (*tags, ("weight", str(weight)))
        app = self.table.new_app(name=None, ip=IPv4Address("10.1.1.1"), tags=tags)
        made = [Listener(self.table.next_listener_id(), app, 4, app.ip, 80) for _ in range(sockets)]
        for each in made:
            self.table.add_listener(each)
        return made

    def instances(self, *weights: int | None) -> list[Listener]:
        return [listener for weight in weights for listener in self.instance(weight)]

    def chosen(self, candidates: list[Listener], times: int) -> list[int]:
        """Of each turn the place of its choice among the candidates."""
        return [candidates.index(self.balancer.order(candidates, 0.0)[0]) for _ in range(times)]


@pytest.fixture
def world() -> World:
    return World()


# --- tags


@pytest.mark.parametrize("text", ["-1", "257", "x", "", "1.5", "٣", "0001", "1e3"])
def test_a_weight_that_is_none(text: str) -> None:
    with pytest.raises(AppSwitchError, match="is no weight") as caught:
        check_tags([("weight", text)])
    assert caught.value.reason == "bad-tag"


@pytest.mark.parametrize("ways", [["random"], [""], ["round-robin", "least-connections"]])
def test_a_way_that_is_none(ways: list[str]) -> None:
    with pytest.raises(AppSwitchError, match="no way to balance"):
        check_tags([("balance", way) for way in ways])


def test_two_weights() -> None:
    with pytest.raises(AppSwitchError, match="given 2 times"):
        check_tags([("weight", "1"), ("weight", "2")])


@pytest.mark.parametrize("tag", [("weight", "0"), ("weight", "256"), ("balance", "least-connections"), ("grp", "x")])
def test_good_tags(tag: Tag) -> None:
    check_tags([tag])
    check_tags([])


# --- round robin


def test_equal_ones_take_turns(world: World) -> None:
    assert world.chosen(world.instances(None, None, None), 9) == [0, 1, 2] * 3


def test_three_to_one(world: World) -> None:
    assert world.chosen(world.instances(3, 1), 8) == [0, 0, 1, 0] * 2


@given(WEIGHTS)
def test_every_one_has_its_part(weights: list[int]) -> None:
    world = World()
    candidates = world.instances(*weights)
    counts = Counter(world.chosen(candidates, 400))
    for place, weight in enumerate(weights):
        assert abs(counts[place] - 400 * weight / sum(weights)) <= len(weights)


def test_the_others_follow(world: World) -> None:
    candidates = world.instances(None, None, None)
    assert world.balancer.order(candidates, 0.0) == candidates


def test_sockets_of_one_app_share_its_part(world: World) -> None:
    candidates = world.instance(sockets=3) + world.instance()
    assert Counter(world.chosen(candidates, 600)) == {0: 100, 1: 100, 2: 100, 3: 300}


def test_a_new_one_has_its_share_at_once_and_no_more(world: World) -> None:
    candidates = world.instances(None, None)
    world.chosen(candidates, 101)
    candidates += world.instances(None)
    assert Counter(world.chosen(candidates, 9)) == {0: 3, 1: 3, 2: 3}


def test_services_don_t_disturb_each_other(world: World) -> None:
    """A program that connects to one and then to the other would always meet the same instance."""
    one, other = world.instances(None, None), world.instances(None, None)
    assert [world.chosen(each, 1)[0] for _ in range(4) for each in (one, other)] == [0, 0, 1, 1, 0, 0, 1, 1]


def test_weight_0_only_where_nothing_else_is(world: World) -> None:
    candidates = world.instances(0, None, 0)
    orders = [[candidates.index(each) for each in world.balancer.order(candidates, 0.0)] for _ in range(5)]
    assert orders == [[1, 0, 2]] * 5
    assert Counter(world.chosen(world.instances(0, 0), 10)) == {0: 5, 1: 5}


# --- least connections


def test_what_selects_it(world: World) -> None:
    plain, tagged = world.instance(), world.instance(None, 1, ("balance", "least-connections"))
    assert not by_connections(plain + world.instance(None, 1, ("balance", "round-robin")))
    assert by_connections(plain + tagged)


def test_the_fewest(world: World) -> None:
    candidates = a, b, c = world.instances(None, None, None)
    assert world.balancer.order(candidates, 0.0, {a.id: 3, b.id: 2, c.id: 4}) == [b, a, c]
    assert world.balancer.order(candidates, 0.0, {a.id: 1, b.id: 2})[0] == c


def test_the_fewest_for_their_weight(world: World) -> None:
    candidates = a, b = world.instances(4, 1)
    assert world.balancer.order(candidates, 0.0, {a.id: 6, b.id: 2})[0] == a
    assert world.balancer.order(candidates, 0.0, {a.id: 9, b.id: 1})[0] == b


def test_equals_take_turns_still(world: World) -> None:
    candidates = world.instances(None, None)
    firsts = [world.balancer.order(candidates, 0.0, {})[0] for _ in range(4)]
    assert firsts == candidates * 2


# --- put aside


def test_one_that_failed_is_put_aside_and_tried_again(world: World) -> None:
    candidates = a, b = world.instances(None, None)
    world.balancer.failed(a, 10.0)
    assert [world.balancer.order(candidates, 10.0 + balance.FIRST_PAUSE / 2) for _ in range(4)] == [[b, a]] * 4
    firsts = {world.balancer.order(candidates, 10.0 + balance.FIRST_PAUSE)[0].id for _ in range(2)}
    assert firsts == {a.id, b.id}


def test_the_pause_doubles_up_to_a_limit_and_ends_when_it_works(world: World) -> None:
    candidates = a, _ = world.instances(None, None)

    def pause(now: float) -> float:
        """Until it is first again."""
        world.balancer.failed(a, now)
        return next(step / 100 for step in range(1000) if world.balancer.order(candidates, now + step / 100)[0] == a)

    pauses = [pause(100.0 * number) for number in range(7)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0], abs=0.03)
    world.balancer.worked(a)
    assert pause(1000.0) == pytest.approx(0.1, abs=0.03)


def test_when_all_are_aside_the_next_one_due_is_tried_first(world: World) -> None:
    candidates = a, b, zero = world.instances(None, None, 0)
    world.balancer.failed(b, 1.0)
    world.balancer.failed(a, 1.01)
    assert world.balancer.order(candidates, 1.02) == [b, a, zero]


# --- instances on several nodes


def on(world: World, node: str, *tags: Tag, count: int = 1) -> list[Listener]:
    """Instances there."""
    for number in range(1, count + 1):
        app = App(number, IPv4Address("10.1.1.1"), node, tags=tags)
        world.table.put_remote(node, f"{number}", AppRecord(app))
        world.table.put_remote(node, f"{number}/1", ListenerRecord(1, 4, app.ip, 80))
    return [each for each in world.table.listeners.values() if each.app.node == node]


def nodes(world: World, candidates: list[Listener], now: float = 0.0) -> list[str]:
    return [each.app.node for each in world.balancer.order(candidates, now)]


def test_ours_first(world: World) -> None:
    candidates = on(world, "b") + world.instances(None, None) + on(world, "c")
    assert [nodes(world, candidates)[:2] for _ in range(4)] == [["n1", "n1"]] * 4
    assert Counter(world.chosen(candidates, 4)) == {1: 2, 2: 2}
    assert [each.app.node for each in world.balancer.first_tier(candidates)] == ["n1", "n1"]


def test_where_none_is_ours_the_others_take_turns(world: World) -> None:
    candidates = on(world, "b") + on(world, "c") + world.instances(0)
    assert world.chosen(candidates, 4) == [0, 1, 0, 1]
    assert world.balancer.first_tier(candidates) == candidates[:2], "ours is for want of others"


def test_those_of_the_next_tier_take_turns_while_ours_is_aside(world: World) -> None:
    candidates = world.instances(None) + on(world, "b") + on(world, "c")
    world.balancer.failed(candidates[0], 0.0)
    assert nodes(world, candidates) == ["b", "c", "n1"]
    assert nodes(world, candidates) == ["c", "b", "n1"]


def test_any_node(world: World) -> None:
    candidates = world.instances(None) + on(world, "b", ("prefer", "any")) + on(world, "c")
    assert world.chosen(candidates, 6) == [0, 1, 2] * 2
    assert world.balancer.first_tier(candidates) == candidates


def test_the_nearest_node(world: World) -> None:
    world.balancer.distance = {"b": 0.05, "c": 0.004, "d": 0.003, "e": float("inf"), "f": 0.0}.__getitem__
    far = on(world, "b", ("prefer", "near")) + on(world, "e") + on(world, "c") + on(world, "d")
    assert nodes(world, far) == ["c", "d", "b", "e"]
    assert nodes(world, far) == ["d", "c", "b", "e"]
    candidates = far + on(world, "f") + world.instances(None)
    assert nodes(world, candidates)[:2] == ["n1", "f"]
    assert [each.app.node for each in world.balancer.first_tier(far)] == ["c", "d"]


def test_a_node_that_does_not_answer_is_put_aside(world: World) -> None:
    candidates = on(world, "b", count=2) + on(world, "c")
    world.balancer.node_failed("b", 10.0)
    assert nodes(world, candidates, 10.9) == ["c", "b", "b"]
    assert nodes(world, candidates, 11.1)[0] == "b", "tried again"
    world.balancer.node_failed("b", 11.1)
    assert nodes(world, candidates, 13.0)[0] == "c", "twice as long"
    world.balancer.node_worked("b")
    assert Counter(nodes(world, candidates, 13.0)[0] for _ in range(30)) == {"b": 20, "c": 10}
    for _ in range(10):
        world.balancer.node_failed("b", 20.0)
    assert nodes(world, candidates, 29.9)[0] == "c"
    assert "b" in {nodes(world, candidates, 30.1)[0] for _ in range(3)}


@pytest.mark.parametrize("ways", [["here"], [""], ["local", "any"]])
def test_a_preference_that_is_none(ways: list[str]) -> None:
    with pytest.raises(AppSwitchError, match="no way to prefer") as caught:
        check_tags([("prefer", way) for way in ways])
    assert "local, any or near" in caught.value.hint


@pytest.mark.parametrize(("weight", "taken"), [("x", 1), ("", 1), ("9999", 256), ("2", 2)])
def test_weights_as_another_node_may_have_let_them_pass(weight: str, taken: int) -> None:
    assert balance.weight_of(App(1, IPv4Address("10.1.1.1"), "b", tags=(("weight", weight),))) == taken


# --- clients that connect by themselves


def test_few_are_given_all_for_ever(world: World) -> None:
    candidates = world.instances(2, 4, 0)
    assert world.balancer.grant(candidates, 8) == ([(candidates[0], 1), (candidates[1], 2)], 0)
    assert world.balancer.grant(world.instances(0), 8)[1] == 0


@pytest.mark.parametrize("count", [9, 18, 20, 100])
def test_many_are_given_in_turn(world: World, count: int) -> None:
    candidates = world.instances(*[None] * count)
    counts: Counter[int] = Counter()
    for _ in range(count):
        shares, uses = world.balancer.grant(candidates, 8)
        assert len(shares) == uses == 8
        counts.update({listener.id: weight for listener, weight in shares})
    assert set(counts.values()) == {8}


def test_many_with_weights(world: World) -> None:
    candidates = world.instances(11, *[1] * 9)
    counts: Counter[int] = Counter()
    for _ in range(10):
        shares, uses = world.balancer.grant(candidates, 8)
        assert sum(weight for _, weight in shares) == uses == 8
        counts.update({listener.id: weight for listener, weight in shares})
    assert counts[candidates[0].id] == 44
    assert all(counts[each.id] == 4 for each in candidates[1:])


def test_what_has_gone_is_forgotten(world: World) -> None:
    for _ in range(2000):
        (only,) = world.instances(None)
        world.chosen([only], 1)
        world.balancer.failed(only, 0.0)
        world.table.remove_app(only.app.id)
    memory = [len(each) for each in (world.balancer._dialled.credit, world.balancer._aside)]
    assert max(memory) <= balance._SPARE + 2
