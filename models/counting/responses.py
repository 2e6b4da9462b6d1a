"""Which entries are one response of the API, and which of them were there before.

The agent writes a response as several entries, one per content block, each with a timestamp of its
own and with what the response took so far. Compactions, resumes and copies write the same entries
again, in the same file or in another, with other uuids but with the same ids and timestamps. And
relays give many responses one id, or none. So it is told in this way:

1. An entry of the same id, request id and timestamp as one before is a copy of it, and belongs to
   its response, unless both have input tokens that differ. (Without a timestamp, the content
   stands for it.)
2. Another one goes on with the response of its id that came last in its chain: unless a person's
   prompt came since, both have request ids that differ, or, where request ids do not tell, both
   have input tokens that differ.
3. Another one begins a response.

A chain is a transcript, or in a main transcript what one subagent wrote into it. A response without
an id is told by its request id, without either by its timestamp, without any of them it is one of
its own. Where a copy, by 1, is of another response than its chain was in, by 2, the two are one,
unless some chain holds both.

What a response took is the largest of each number that one of its entries has. Its calls are told
by their ids, and a call has failed if one of its results says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast

from .bounded import bytes_of
from .one_response import CountedCall, Counts, Response, Taken, Written

# A chain is in one response at a time; a late entry of another is looked up.
_MAX_PLACES_PER_CHAIN = 2

_MAX_PLACES = 48
_MAX_PLACES_BYTES = 28 * 1024

# In BSON, without the texts.
_PLACE_BYTES = 315

_COUNTS_BEFORE = 5
"""How many counts an older release knows."""

_CALL_BYTES = 65
_MAX_CALLS_KEPT = 64


class _Identity:
    """The responses that share an identity: one, but for what relays give the same id."""

    __slots__ = ("head", "instants", "is_complete", "places")

    def __init__(self, head: bytes, *, is_complete: bool) -> None:
        self.head = head
        """The instant of its first entry, which carries the identity alone as its digest."""
        self.is_complete = is_complete
        """Whether all that is stored of it is known, or is in the batch that is counted."""
        self.instants: dict[bytes, Response] = {}
        self.places: dict[str, tuple[Response, int]] = {}
        """The response that each chain was in last, and how many prompts it had had by then."""


class StoredPart(NamedTuple):
    """A stored entry, and what is known of it."""

    written: Written
    first: int
    """The position of the entry that began its response."""
    has_prompt_since: bool
    """Whether a person's prompt has come in its chain behind it."""


class Placed(NamedTuple):
    """Where an entry belongs."""

    response: Response
    is_copy: bool
    """Whether the entry was there before."""
    before: tuple[Taken, ...]
    """What was counted of the response until now, and of the one that is absorbed."""
    absorbed: Response | None
    """Another response that has turned out to be the same one."""
    first: int
    """The position of the entry that began its response."""
    digest: bytes
    """What the stored entry carries, so that a copy of it is refused by the unique index."""


class Responses:
    """The responses of a session, all of them or those that its chains are in.

    With a part of them, what is not known is taken for new. If it is not, the unique index on the
    digests of the stored entries refuses it, or :attr:`asked` says what must be looked up before.
    """

    def __init__(self, *, is_complete: bool = True) -> None:
        self._is_complete = is_complete
        self._identities: dict[bytes, _Identity] = {}
        self._prompts: dict[str, int] = {}
        self._places: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._kept: list[tuple[str, bytes]] | None = None
        self.asked: set[bytes] = set()
        """The identities of which more must be known."""

    def __len__(self) -> int:
        return len(self._places)

    def prompted(self, chain: str) -> None:
        """Note that a person's prompt has come in a chain."""
        self._prompts[chain] = self._prompts.get(chain, 0) + 1

    def place(self, written: Written, seq: int) -> Placed:
        """Find the response of an entry at a position, or begin it."""
        identity_key, chain = written.identity, written.chain
        if identity_key is None:
            response = Response(seq, written.request)
            response.take(written)
            return Placed(response, False, (), None, seq, b"")
        identity = self._identities.get(identity_key)
        prompts = self._prompts.get(chain, 0)
        response: Response | None = None
        absorbed: Response | None = None
        first: int | None = None
        is_copy = False
        digest = written.instant
        if identity is None:
            identity = self._identities[identity_key] = _Identity(written.instant, is_complete=True)
            digest = identity_key
        else:
            last, then = identity.places.get(chain, (None, -1))
            goes_on = last if then == prompts else None
            if goes_on is not None and not goes_on.may_be(written.request, written.counts):
                goes_on = None
            known = identity.instants.get(written.instant)
            if not identity.is_complete and (
                last is None or (known is None and written.instant == identity.head)
            ):
                # The index cannot refuse it, nor tell what its chain was in.
                self.asked.add(identity_key)
            if known is not None:
                digest += seq.to_bytes(8, "big")
                if known.may_be(written.request, written.counts):
                    response, is_copy = known, True
                    if goes_on is None or goes_on is known:
                        pass
                    elif not identity.is_complete:
                        self.asked.add(identity_key)
                    elif not goes_on.chains & known.chains:
                        absorbed, first = goes_on, goes_on.first
            response = response or goes_on
        before: tuple[Taken, ...] = ()
        if response is None:
            response = Response(seq, written.request)
        elif absorbed is None:
            before = (response.taken,)
        else:
            before = (response.taken, absorbed.taken)
            _absorb(identity, response, absorbed)
        if written.instant not in identity.instants:
            identity.instants[written.instant] = response
            response.instants.append(written.instant)
        response.take(written)
        identity.places[chain] = (response, prompts)
        if not self._is_complete:
            place = (chain, identity_key)
            self._places[place] = None
            self._places.move_to_end(place)
            self._kept = None
        return Placed(response, is_copy, before, absorbed, first or response.first, digest)

    def restore(self, stored: Sequence[StoredPart]) -> list[Response]:
        """Take in all stored entries of one identity, in the order of their positions.

        Nothing may be known of it yet, see :meth:`forget`. Returns the response of each.
        """
        found: list[Response] = []
        by_first: dict[int, Response] = {}
        for entry in stored:
            written = entry.written
            assert written.identity is not None
            identity = self._identities.setdefault(
                written.identity, _Identity(written.instant, is_complete=True)
            )
            known = identity.instants.get(written.instant)
            response = by_first.get(entry.first)
            if response is None:
                is_known = known is not None and known.may_be(written.request, written.counts)
                response = (
                    known
                    if known is not None and is_known
                    else Response(entry.first, written.request)
                )
            elif (
                known is not None
                and known is not response
                and known.may_be(written.request, written.counts)
            ):
                _absorb(identity, known, response)
                by_first = {k: known if r is response else r for k, r in by_first.items()}
                found = [known if each is response else each for each in found]
                response = known
            by_first[entry.first] = response
            if known is None:
                identity.instants[written.instant] = response
                response.instants.append(written.instant)
            response.take(written)
            prompts = self._prompts.get(written.chain, 0)
            identity.places[written.chain] = (response, prompts - entry.has_prompt_since)
            found.append(response)
        return found

    def forget(self, identities: Collection[bytes]) -> None:
        """Drop what is known in part of some identities, before all of it is restored."""
        for identity in identities:
            self._identities.pop(identity, None)
        for place in [place for place in self._places if place[1] in identities]:
            del self._places[place]
        self._kept = None

    def of_instant(self, written: Written) -> Response | None:
        """The response that has an entry like this, if it is known."""
        identity = self._identities.get(written.identity or b"")
        return identity.instants.get(written.instant) if identity is not None else None

    def is_new(self, identity: bytes, instant: bytes) -> bool:
        """Whether no entry of an identity that is known is like this one."""
        known = self._identities.get(identity)
        return known is None or instant not in known.instants

    def all(self) -> list[Response]:
        """All responses that are known, those that share an identity in the order of entries."""
        return [r for identity in self._identities.values() for r in _all_of(identity)]

    def document(self) -> list[list[Any]]:
        """What the chains are in, in a form to store; :meth:`of` makes it back."""
        return [self._row(*place) for place in self._under_way()]

    def settle(self) -> None:
        """Keep what :meth:`document` has, and forget the rest."""
        kept = self._under_way()
        identities: dict[bytes, _Identity] = {}
        for chain, key in kept:
            before = self._identities[key]
            response, _ = before.places[chain]
            identity = identities.get(key)
            if identity is None:
                identity = identities[key] = _Identity(before.head, is_complete=False)
            identity.places[chain] = before.places[chain]
            del response.instants[:-1]
            identity.instants[response.instants[-1]] = response
        self._identities = identities
        self._places = OrderedDict.fromkeys(kept)
        self._prompts = {chain: self._prompts[chain] for chain, _ in kept if chain in self._prompts}
        self.asked = set()

    def _under_way(self) -> list[tuple[str, bytes]]:
        if self._kept is not None:
            return self._kept
        kept: list[tuple[str, bytes]] = []
        room = _MAX_PLACES_BYTES
        per_chain: dict[str, int] = {}
        for place in reversed(self._places):
            chain, key = place
            count = per_chain.get(chain, 0)
            if count == _MAX_PLACES_PER_CHAIN:
                continue
            per_chain[chain] = count + 1
            response, _ = self._identities[key].places[chain]
            if len(response.calls) <= _MAX_CALLS_KEPT:
                size = _size_of(chain, response)
                # A large one is looked up if it goes on, rather than many others.
                if size <= room:
                    kept.append(place)
                    room -= size
            if len(kept) == _MAX_PLACES:
                break
        self._kept = kept[::-1]
        return self._kept

    def _row(self, chain: str, key: bytes) -> list[Any]:
        response, prompts = self._identities[key].places[chain]
        return [
            chain,
            key,
            prompts == self._prompts.get(chain, 0),
            response.first,
            response.request,
            response.day,
            response.model,
            *response.counts[:_COUNTS_BEFORE],
            response.cost,
            response.instants[-1],
            self._identities[key].head,
            [[i, c.name, c.failure, c.has_failed] for i, c in response.calls.items()],
            # Behind all that an older release reads.
            *response.counts[_COUNTS_BEFORE:],
        ]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Responses:
        """The responses that :meth:`document` was made from."""
        responses = cls(is_complete=False)
        known: dict[tuple[bytes, int], Response] = {}
        for row in rows:
            chain, key, goes_on, first, request, day, model = row[:7]
            response = known.get((key, first))
            if response is None:
                counts = cast("Counts", (*row[7:12], *row[16:18]))
                response = known[key, first] = Response(first, request, day, model, counts, row[12])
                response.calls = {each[0]: CountedCall(*each[1:]) for each in row[15]}
            identity = responses._identities.setdefault(key, _Identity(row[14], is_complete=False))
            response.chains.add(chain)
            if row[13] not in identity.instants:
                response.instants.append(row[13])
                identity.instants[row[13]] = response
            identity.places[chain] = (response, 0 if goes_on else -1)
            responses._places[chain, key] = None
        return responses


def _size_of(chain: str, response: Response) -> int:
    """About what it takes to store that a chain is in a response, never less."""
    calls = response.calls
    size = _PLACE_BYTES + bytes_of(chain + response.request + response.model)
    if calls:
        names = [call.name for call in calls.values()]
        size += len(calls) * _CALL_BYTES + bytes_of("".join((*calls, *names)))
    return size


def _all_of(identity: _Identity) -> list[Response]:
    return list(dict.fromkeys(identity.instants.values()))


def _absorb(identity: _Identity, kept: Response, other: Response) -> None:
    if other.counts[0] and other.day > kept.day:
        kept.day, kept.model = other.day, other.model
    kept.counts = cast("Counts", tuple(map(max, kept.counts, other.counts)))
    kept.cost = max(kept.cost, other.cost)
    for instant in other.instants:
        identity.instants[instant] = kept
    kept.instants += other.instants
    kept.chains |= other.chains
    kept.first = min(kept.first, other.first)
    for chain, (response, prompts) in identity.places.items():
        if response is other:
            identity.places[chain] = (kept, prompts)
