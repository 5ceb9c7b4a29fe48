"""Keeping the tables of all nodes the same (anti-entropy): each node writes a log of its own entries, others follow.

An owner numbers its changes: (incarnation, seq). A copy of its entries that another node has is always exactly what the
owner had at some such number. A delta that begins where a copy is, or before, moves it on; one that begins later is a
gap, and the owner is asked for what is missing. So it doesn't matter who hears what first, twice, or at all, and nobody
has to sign anything: only an owner's own word counts. Removed entries are remembered in the owner's log alone, which is
bounded: who is further behind gets everything, which replaces what it has. A restarted owner has a greater incarnation;
where its clock went back, it learns of its former one from those who ask.

Each state has a digest, a sum of hashes, one an entry: a copy that isn't what it should be is found, and made anew.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from attrs import define, evolve, field, frozen

from appswitch.model import Delta, Summary

KEPT = 4096  # changes that an owner remembers
MOST = (1 << 64) - 1  # the greatest number that can be said
MOST_SIZE = 1 << 25  # bytes that a copy may take
ENTRY = 128  # bytes that an entry takes beside its own

Change = tuple[str, bytes | None]


@frozen
class Applied:
    """A copy has moved on. changed: what has another value now; None: it has gone."""

    changed: dict[str, bytes | None]


@frozen
class Gap:
    """Something is missing before it: the owner has to be asked (Log.since with Copies.summary_of)."""


@frozen
class Excess:
    """It would make the copy too large: nobody has as many apps."""


@frozen
class Old:
    """It says nothing new, or comes from a node that is no member."""


class Log:
    """The entries of this node. incarnation: greater than that of any life before, as far as is known."""

    def __init__(self, owner: str, incarnation: int, kept: int = KEPT) -> None:
        self.owner = owner
        self.entries: dict[str, bytes] = {}
        self._summary = Summary(incarnation, 0, 0)
        self._recent: deque[Change] = deque(maxlen=kept)

    @property
    def summary(self) -> Summary:
        """Where it is now."""
        return self._summary

    def put(self, key: str, value: bytes) -> None:
        """Adds or replaces an entry."""
        self._change(key, value)

    def remove(self, key: str) -> None:
        """Takes an entry out, if it is there."""
        self._change(key, None)

    def _change(self, key: str, value: bytes | None) -> None:
        if self.entries.get(key) == value:
            return
        digest = _digest(self._summary.digest, self.entries, {key: value})
        _update(self.entries, {key: value})
        self._recent.append((key, value))
        self._summary = evolve(self._summary, seq=self._summary.seq + 1, digest=digest)

    def since(self, known: Summary | None) -> Delta:
        """What somebody misses whose copy is at `known`; None: everything.

        Where that is ahead of us, it is of a life that we don't remember: a new one begins.
        """
        if known is not None:
            self.outlive(known)
        now = self._summary
        if known is not None and known.incarnation == now.incarnation:
            missing = now.seq - known.seq
            if missing <= len(self._recent) and (missing or known.digest == now.digest):
                changes = tuple(islice(self._recent, len(self._recent) - missing, None))
                return Delta(self.owner, now.incarnation, known.seq, now.seq, now.digest, changes)
        return Delta(self.owner, now.incarnation, 0, now.seq, now.digest, tuple(self.entries.items()), whole=True)

    def outlive(self, told: Summary) -> None:
        """Somebody says that we are there. Where that is ahead of us, a new life begins."""
        if (told.incarnation, told.seq) > (self._summary.incarnation, self._summary.seq):
            self._summary = evolve(self._summary, incarnation=min(told.incarnation + 1, MOST))


@define
class _Copy:
    """incarnation: -1: nothing has been heard yet; broken: it isn't what the owner had."""

    incarnation: int = -1
    seq: int = 0
    digest: int = 0
    entries: dict[str, bytes] = field(factory=dict)
    size: int = 0
    broken: bool = False


class Copies:
    """What the other members have."""

    def __init__(self) -> None:
        self._copies: dict[str, _Copy] = {}

    def admit(self, owner: str) -> None:
        """It is a member: what it says counts from now on."""
        self._copies.setdefault(owner, _Copy())

    def forget(self, owner: str) -> None:
        """It has left. What is still under way of it counts no more."""
        self._copies.pop(owner, None)

    def owners(self) -> Iterable[str]:
        """The members."""
        return self._copies.keys()

    def entries_of(self, owner: str) -> dict[str, bytes]:
        """Its entries, as far as is known."""
        copy = self._copies.get(owner)
        return copy.entries if copy else {}

    def summary_of(self, owner: str) -> Summary | None:
        """Where our copy is, to ask the owner for what is missing; None: everything is."""
        copy = self._copies.get(owner)
        if copy is None or copy.broken or copy.incarnation < 0:
            return None
        return Summary(copy.incarnation, copy.seq, copy.digest)

    def heard(self, owner: str, said: Summary) -> bool:
        """Whether the owner has to be asked, now that it, or someone who had it from there, says this.

        Another incarnation, even a lesser one: the owner may not know of its former life (Log.since).
        """
        if owner not in self._copies:
            return False
        known = self.summary_of(owner)
        if known is None or known.incarnation != said.incarnation:
            return True
        return said.seq > known.seq or (said.seq == known.seq and said.digest != known.digest)

    def apply(self, delta: Delta) -> Applied | Gap | Old | Excess:
        """Moves a copy on."""
        copy = self._copies.get(delta.owner)
        if copy is None or delta.incarnation < copy.incarnation:
            return Old()
        anew = delta.whole or delta.incarnation > copy.incarnation
        if delta.incarnation == copy.incarnation:
            repairs = delta.whole and (copy.broken or delta.digest != copy.digest)
            if delta.seq < copy.seq or (delta.seq == copy.seq and not repairs):
                return Old()
        start = delta.after if delta.whole else 0 if anew else copy.seq
        if delta.after > start or (copy.broken and not anew):
            return Gap()
        said = dict(delta.changes[start - delta.after :])
        if anew:
            said = {**dict.fromkeys(copy.entries), **said}
        changed = {key: value for key, value in said.items() if copy.entries.get(key) != value}
        digest = _digest(copy.digest, copy.entries, changed)
        if delta.digest not in (None, digest):
            copy.broken = True
            return Gap()
        size = copy.size + _growth(copy.entries, changed)
        if size > MOST_SIZE:
            return Excess()
        _update(copy.entries, changed)
        copy.size = size
        copy.incarnation, copy.seq, copy.digest, copy.broken = delta.incarnation, delta.seq, digest, False
        return Applied(changed)


def _update(entries: dict[str, bytes], changed: Mapping[str, bytes | None]) -> None:
    for key, value in changed.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value


def _growth(entries: Mapping[str, bytes], changed: Mapping[str, bytes | None]) -> int:
    """By how many bytes `entries` will be larger."""
    gone = sum(ENTRY + len(key) + len(entries[key]) for key in changed if key in entries)
    come = sum(ENTRY + len(key) + len(value) for key, value in changed.items() if value is not None)
    return come - gone


def _digest(before: int, entries: Mapping[str, bytes], changed: Mapping[str, bytes | None]) -> int:
    """Of what `entries`, whose digest is `before`, will be."""
    gone = sum(_hash(key, entries[key]) for key in changed if key in entries)
    come = sum(_hash(key, value) for key, value in changed.items() if value is not None)
    return (before - gone + come) % (1 << 64)


def _hash(key: str, value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode() + b"\0" + value, digest_size=8).digest(), "big")
