"""Who has a name."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.membership import CLAIM, Claim, Member, Status, agent_name, holders, parse_claim, parse_member

OLD = Member("a", "10.0.0.1", 7946, Status.ALIVE, {}, 100, Claim(unestablished=False, since=50))
NEW = Member("a", "10.0.0.2", 7946, Status.ALIVE, {}, 300, Claim(unestablished=True, since=250))

members = st.builds(
    Member,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    st.just(7946),
    st.sampled_from(list(Status)),
    st.just({}),
    st.integers(0, 9),
    st.builds(Claim, st.booleans(), st.integers(0, 4)),
)


def holder(*them: Member) -> Member:
    found = holders(them)
    assert holders(reversed(them)) == found
    return found["a"]


def test_a_member_as_serf_tells_of_it() -> None:
    claim = Claim(unestablished=True, since=0xABC)
    assert parse_claim(str(claim)) == claim
    tags = {CLAIM: str(claim), "p": "7947"}
    member = parse_member(agent_name("web~1", 255), "10.0.0.1", 7946, "failed", tags)
    assert member == Member("web~1", "10.0.0.1", 7946, Status.FAILED, tags, 255, claim)
    assert member.agent == "web~1~ff"


def test_who_is_no_node_of_ours() -> None:
    for agent, status, tags in (
        ("host", "alive", {CLAIM: "1"}),
        ("a~x y", "alive", {CLAIM: "1"}),
        ("a~1", "none", {CLAIM: "1"}),
        ("a~1", "alive", {}),
        ("a~1", "alive", {CLAIM: ""}),
    ):
        assert parse_member(agent, "10.0.0.1", 7946, status, tags) is None


def test_the_established_claim_wins_whatever_the_clocks_say() -> None:
    assert holder(OLD, NEW) == OLD
    backwards = evolve(NEW, claim=Claim(unestablished=True, since=1))
    assert holder(OLD, backwards) == OLD


def test_the_older_of_two_established_claims_wins() -> None:
    assert holder(OLD, evolve(NEW, claim=Claim(unestablished=False, since=250))) == OLD
    assert holder(OLD, evolve(NEW, claim=Claim(unestablished=False, since=40))).started == NEW.started


def test_one_that_has_failed_keeps_its_name() -> None:
    failed = evolve(OLD, status=Status.FAILED)
    assert holder(failed, NEW) == failed


def test_one_that_has_left_gives_it_up() -> None:
    left = evolve(OLD, status=Status.LEFT)
    assert holder(left, NEW) == NEW
    assert holder(left) == left


def test_a_restart_is_the_same_node() -> None:
    restarted = evolve(OLD, started=200, claim=Claim(unestablished=True, since=199))  # its disk is new
    for status in (Status.ALIVE, Status.FAILED):
        found = holder(evolve(OLD, status=status), NEW, restarted)
        assert found == evolve(restarted, claim=OLD.claim)


def test_one_that_has_moved_is_the_same_node() -> None:
    moved = evolve(OLD, address="10.0.0.9", started=200)
    assert holder(evolve(OLD, status=Status.FAILED), moved, NEW) == moved


def test_a_copied_disk_makes_another_node() -> None:
    copy = evolve(OLD, address="10.0.0.9", started=200)
    assert holder(OLD, copy) == OLD


def test_what_is_alive_counts_at_one_address() -> None:
    later = evolve(OLD, started=200, status=Status.FAILED)
    assert holder(OLD, later) == OLD


@given(st.lists(members, unique_by=lambda each: each.agent))
def test_everybody_decides_the_same(them: list[Member]) -> None:
    found = holders(them)
    assert found == holders(reversed(them))
    assert found.keys() == {each.name for each in them}
    for name, each in found.items():
        same = [other for other in them if other.name == name]
        assert each.agent in {other.agent for other in same}
        assert (each.status is Status.LEFT) == all(other.status is Status.LEFT for other in same)
