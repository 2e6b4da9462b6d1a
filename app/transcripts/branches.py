"""Which entries are the conversation: the agent appends, but a conversation branches.

Entries are linked by ``parentUuid``, from the last back to the first. Going back to an earlier
prompt starts a new branch in the same transcript, a compaction a new chain without a parent, and
tools that run in parallel make little forks of which the links reach one side only. What counts
is what ``get_session_messages`` of the SDK shows, and this agrees with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import cached_property

from ...models.views.blocks import ToolUseBlock
from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry
from ...models.views.system import CompactBoundaryEntry

Chain = list[ConversationEntry]


class Links:
    """The entries of one transcript that have a uuid, and how they hang together.

    Whatever is asked for takes time in proportion to the number of entries, however they are
    linked: no way back is walked twice.
    """

    def __init__(self, entries: Iterable[ConversationEntry]) -> None:
        self._by_uuid: dict[str, ConversationEntry] = {}
        self._position: dict[str, int] = {}
        for position, entry in enumerate(entries):
            if entry.uuid is not None and _displaces(entry, self._by_uuid.get(entry.uuid)):
                self._by_uuid[entry.uuid] = entry
                self._position[entry.uuid] = position
        self._responses = _JoinedResponses(self._by_uuid)

    def chains(self) -> list[Chain]:
        """The conversation from its start, cut at every compaction; the last one is active.

        It is cut as well where the entry before is not there, or the links lead in a circle: what
        a resumed agent is given begins there. What was written before is in the segment before.
        A circle from which nothing leads away is the last segment, if it was written last: no
        agent goes on from it, but it is no less a part of what was said.
        """
        return self._segments(self._last(), self._responses.restored)

    def active_chain(self, chains: list[Chain]) -> Chain:
        """What a resumed agent goes on from, which is the last of the chains but for circles."""
        leaf = self._leaf()
        if leaf is not self._last():
            chains = self._segments(leaf, self._responses.restored)
        return chains[-1] if chains else []

    def subagent_chains(self) -> list[Chain]:
        """The chain of a subagent, which never branches: back from its last message."""
        messages = (e for e in self._by_uuid.values() if isinstance(e, UserEntry | AssistantEntry))
        return self._segments(max(messages, key=self._place, default=None), lambda chain, _: chain)

    def branches(self, known: Iterable[ConversationEntry]) -> list[Chain]:
        """What was left aside: chains that end elsewhere, from where they fork off ``known``."""
        seen = _uuids(known)
        walked: set[str] = set()
        found: list[Chain] = []
        leaves = [*self._leaves(self._tips), *self._leaves(self._circle_ends())]
        for leaf in sorted(leaves, key=self._place, reverse=True):
            if not _is_main(leaf):
                continue
            # A leaf that a response was joined with is known, but what it hangs from need not be.
            chain = [e for e in self._back_from(leaf, walked) if e.uuid not in seen]
            seen |= _uuids(chain)
            if chain:
                found.append(chain)
        return found[::-1]

    def _segments(
        self, leaf: ConversationEntry | None, restored: Callable[[Chain, Set[str]], Chain]
    ) -> list[Chain]:
        found: list[Chain] = []
        seen: set[str] = set()
        walked: set[str] = set()
        earlier = _Earlier([] if leaf is None else self._beside(leaf), self._position, seen)
        while leaf is not None and leaf.uuid not in seen:
            # What a later segment holds is in no earlier one, wherever the links lead.
            path = self._back_from(leaf, walked)
            chain = [entry for entry in path if entry.uuid not in seen]
            found.append(restored(chain, seen))
            seen |= _uuids(found[-1])
            leaf = self._before(path[0], chain[0], earlier)
        return found[::-1]

    def _before(
        self, start: ConversationEntry, first: ConversationEntry, earlier: _Earlier
    ) -> ConversationEntry | None:
        """What comes before a segment that begins with ``first``, on a path from ``start``."""
        if isinstance(first, CompactBoundaryEntry):
            named = self._by_uuid.get(first.logical_parent_uuid or "")
            return named or earlier.than(first)
        if start is not first:
            # It forks off what a later segment holds.
            return None
        if first.parent_uuid is None:
            # Some agents left out the boundary before what sums up.
            is_summary = isinstance(first, UserEntry) and first.is_compact_summary
            return earlier.than(first) if is_summary else None
        is_lost = first.parent_uuid not in self._by_uuid or first.uuid in self._circles
        return earlier.than(first) if is_lost else None

    def _beside(self, leaf: ConversationEntry) -> Chain:
        """The entries among which to look where a link leads nowhere."""
        entries = self._by_uuid.values()
        return [e for e in entries if _is_main(e)] if _is_main(leaf) else list(entries)

    def _last(self) -> ConversationEntry | None:
        leaf = self._leaf()
        rounds = [end for end in self._leaves(self._circle_ends()) if _is_main(end)]
        return max([*rounds, *([leaf] if leaf else [])], key=self._place, default=None)

    def _leaf(self) -> ConversationEntry | None:
        leaves = list(self._leaves(self._tips))
        main = [leaf for leaf in leaves if _is_main(leaf) and not leaf.is_meta]
        return max(main or leaves, key=self._place, default=None)

    def _leaves(self, tips: Chain) -> Iterator[ConversationEntry]:
        """The last message of every chain, whatever else comes behind it."""
        known: dict[str, ConversationEntry | None] = {}
        for tip in tips:
            path: list[str] = []
            message: ConversationEntry | None = None
            for entry in self._upwards(tip, set()):
                uuid = entry.uuid or ""
                if uuid in known or isinstance(entry, UserEntry | AssistantEntry):
                    message = known.get(uuid, entry)
                    break
                path.append(uuid)
            # Many tips may share a way back on which there is no message.
            known.update(dict.fromkeys(path, message))
            if message is not None:
                yield message

    @cached_property
    def _tips(self) -> Chain:
        """The entries that none comes behind."""
        parents = {entry.parent_uuid for entry in self._by_uuid.values()}
        return [entry for uuid, entry in self._by_uuid.items() if uuid not in parents]

    def _circle_ends(self) -> Chain:
        """The last entry of each circle from which nothing leads away."""
        if not self._circles:
            return []
        reached: set[str] = set()
        for tip in self._tips:
            reached |= _uuids(list(self._upwards(tip, reached)))
        ends = {last.uuid or "": last for last in self._circles.values()}
        return [last for uuid, last in ends.items() if uuid not in reached]

    @cached_property
    def _circles(self) -> dict[str, ConversationEntry]:
        """The entries whose links lead round to themselves, each with the last of its circle."""
        found: dict[str, ConversationEntry] = {}
        walked: set[str] = set()
        for entry in self._by_uuid.values():
            path = list(self._upwards(entry, walked))
            places = {each.uuid: place for place, each in enumerate(path)}
            place = places.get(path[-1].parent_uuid) if path and path[-1].parent_uuid else None
            if place is not None:
                circle = path[place:]
                found |= dict.fromkeys(_uuids(circle), max(circle, key=self._place))
            walked |= _uuids(path)
        return found

    def _back_from(self, leaf: ConversationEntry, walked: set[str]) -> Chain:
        """The way from the start to an entry, or from behind what was walked before."""
        path = list(self._upwards(leaf, walked))[::-1]
        walked |= _uuids(path)
        return path

    def _upwards(
        self, entry: ConversationEntry | None, walked: Set[str]
    ) -> Iterator[ConversationEntry]:
        seen: set[str | None] = set()
        while entry is not None and entry.uuid not in seen and entry.uuid not in walked:
            seen.add(entry.uuid)
            yield entry
            entry = self._by_uuid.get(entry.parent_uuid) if entry.parent_uuid else None

    def _place(self, entry: ConversationEntry) -> int:
        return self._position[entry.uuid or ""]


class _Earlier:
    """Finds what was written before an entry, and is in no segment yet."""

    def __init__(self, entries: Chain, position: dict[str, int], seen: Set[str]) -> None:
        self._entries = entries
        self._places = [position[entry.uuid or ""] for entry in entries]
        self._position = position
        self._seen = seen
        # Where to look on from a place whose entry is in a segment; such a place stays so.
        self._next = list(range(len(entries)))

    def than(self, entry: ConversationEntry) -> ConversationEntry | None:
        """The last such entry before another one."""
        at = bisect_left(self._places, self._position[entry.uuid or ""]) - 1
        path: list[int] = []
        while at >= 0 and self._entries[at].uuid in self._seen:
            path.append(at)
            at = self._next[at] if self._next[at] != at else at - 1
        for each in path:
            self._next[each] = at
        return self._entries[at] if at >= 0 else None


class _JoinedResponses:
    """The responses of the API, put together from their entries.

    A response is one entry per content block, each the parent of the next; a tool's result has
    its own call as parent. With calls in parallel the next entry follows one of the results, and
    the way back from there misses the calls behind that one, and the other results.
    """

    def __init__(self, entries: dict[str, ConversationEntry]) -> None:
        self._place = {uuid: place for place, uuid in enumerate(entries)}
        self._parts: dict[str, list[AssistantEntry]] = {}
        callers: dict[str, AssistantEntry | None] = {}
        results: list[UserEntry] = []
        for entry in entries.values():
            if isinstance(entry, AssistantEntry):
                if response := _response_id(entry):
                    self._parts.setdefault(response, []).append(entry)
                    for call in _calls(entry):
                        other = callers.get(call, entry)
                        # A call that two responses claim tells nothing of either.
                        is_same = other is not None and _response_id(other) == response
                        callers[call] = entry if is_same else None
            elif isinstance(entry, UserEntry) and entry.parent_uuid and entry.tool_results:
                results.append(entry)
        self._callers = callers
        self._results: dict[str, list[UserEntry]] = {}
        for result in results:
            source = entries.get(result.source_tool_assistant_uuid or "")
            claimed = [source, *(callers.get(call) for call in _answers(result))]
            homes = [c.uuid or "" for c in claimed if c is not None and _same_writer(c, result)]
            for home in (result.parent_uuid or "", *homes):
                self._results.setdefault(home, []).append(result)

    def restored(self, chain: Chain, elsewhere: Set[str]) -> Chain:
        """The chain with what its responses miss, behind the last entry of each."""
        on_chain = _Either(_uuids(chain), elsewhere)
        answered = {call for entry in chain for call in _answers(entry)}
        ends: dict[str, ConversationEntry] = {}
        for entry in chain:
            if response := _response_id(entry):
                ends[response] = entry
        missing: dict[str, Chain] = {}
        for response in dict.fromkeys(map(_response_id, chain)):
            if response:
                parts = self._parts.get(response, [])
                found: Chain = [
                    *sorted((p for p in parts if p.uuid not in on_chain), key=_time),
                    *sorted(self._missing_results(parts, on_chain, answered), key=_time),
                ]
                on_chain.own |= _uuids(found)
                missing[ends[response].uuid or ""] = found
        return [each for entry in chain for each in (entry, *missing.get(entry.uuid or "", ()))]

    def _missing_results(
        self, parts: Sequence[AssistantEntry], on_chain: _Either, answered: Set[str]
    ) -> list[UserEntry]:
        homes = _uuids(parts)
        claimed = {
            result.uuid: result
            for part in parts
            for result in self._results.get(part.uuid or "", ())
            if result.uuid not in on_chain
        }
        found = [result for result in claimed.values() if result.parent_uuid in homes]
        # One that hangs elsewhere belongs here only if its call has no other answer.
        strays = [result for result in claimed.values() if result.parent_uuid not in homes]
        closed = _Either({call for result in found for call in _answers(result)}, answered)
        for stray in sorted(strays, key=lambda entry: self._place[entry.uuid or ""]):
            calls = set(_answers(stray))
            callers = [self._callers.get(call) for call in calls if call not in closed]
            if any(caller is not None and caller.uuid in homes for caller in callers):
                closed.own |= calls
                found.append(stray)
        return found


class _Either:
    """What is in a set of one's own or in another's, which is too large to copy each time."""

    def __init__(self, own: set[str], other: Set[str]) -> None:
        self.own = own
        self._other = other

    def __contains__(self, item: object) -> bool:
        return item in self.own or item in self._other


def _uuids(entries: Iterable[ConversationEntry]) -> set[str]:
    return {entry.uuid for entry in entries if entry.uuid is not None}


def _displaces(entry: ConversationEntry, known: ConversationEntry | None) -> bool:
    """Whether an entry stands for its uuid instead of an earlier one that has it too.

    The last one does, unless the conversation would end there, or lose a message to what the agent
    adds to it.
    """
    if known is None:
        return True
    is_message = isinstance(entry, UserEntry | AssistantEntry)
    return entry.parent_uuid != entry.uuid and (
        is_message or not isinstance(known, UserEntry | AssistantEntry)
    )


def _is_main(entry: ConversationEntry) -> bool:
    return not entry.is_sidechain and not entry.team_name


def _same_writer(one: ConversationEntry, other: ConversationEntry) -> bool:
    return (one.is_sidechain, one.agent_id) == (other.is_sidechain, other.agent_id)


def _response_id(entry: ConversationEntry) -> str | None:
    return entry.message.id if isinstance(entry, AssistantEntry) and entry.message else None


def _calls(entry: AssistantEntry) -> list[str]:
    return [b.id for b in entry.blocks if isinstance(b, ToolUseBlock) and b.id is not None]


def _answers(entry: ConversationEntry) -> list[str]:
    results = entry.tool_results if isinstance(entry, UserEntry) else []
    return [result.tool_use_id for result in results if result.tool_use_id is not None]


def _time(entry: ConversationEntry) -> str:
    written = entry.raw.get("timestamp")
    return written if isinstance(written, str) else ""
