"""Which entries are the conversation: the agent appends, but a conversation branches.

Entries are linked by ``parentUuid``, from the last back to the first. Going back to an earlier
prompt starts a new branch in the same transcript, a compaction a new chain without a parent, and
tools that run in parallel make little forks of which the links reach one side only. What counts
is what ``get_session_messages`` of the SDK shows, and this agrees with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from ..models.blocks import ToolUseBlock
from ..models.messages import AssistantEntry, ConversationEntry, UserEntry
from ..models.system import CompactBoundaryEntry

Chain = list[ConversationEntry]


class Links:
    """The entries of one transcript that have a uuid, and how they hang together."""

    def __init__(self, entries: Iterable[ConversationEntry]) -> None:
        self._by_uuid: dict[str, ConversationEntry] = {}
        self._position: dict[str, int] = {}
        for position, entry in enumerate(entries):
            if entry.uuid is not None and _displaces(entry, self._by_uuid.get(entry.uuid)):
                self._by_uuid[entry.uuid] = entry
                self._position[entry.uuid] = position
        self._responses = _Responses(self._by_uuid)

    def chains(self) -> list[Chain]:
        """The active conversation from its start, cut at every compaction; the last is active."""
        leaf = self._leaf()
        found: list[Chain] = []
        seen: set[str] = set()
        while leaf is not None and leaf.uuid not in seen:
            # What a later segment holds is in no earlier one, wherever the links lead.
            chain = [entry for entry in self._back_from(leaf) if entry.uuid not in seen]
            found.append(self._responses.restored(chain, seen))
            seen |= _uuids(found[-1])
            first = chain[0]
            before = first.logical_parent_uuid if isinstance(first, CompactBoundaryEntry) else None
            leaf = self._by_uuid.get(before) if before else None
        return found[::-1]

    def branches(self, known: Iterable[ConversationEntry]) -> list[Chain]:
        """What was left aside: chains that end elsewhere, from where they fork off ``known``."""
        seen = _uuids(known)
        found: list[Chain] = []
        for leaf in sorted(self._leaves(), key=self._place, reverse=True):
            if leaf.uuid in seen or not _is_main(leaf):
                continue
            chain = [entry for entry in self._back_from(leaf) if entry.uuid not in seen]
            seen |= _uuids(chain)
            found.append(chain)
        return found[::-1]

    def last_chain(self) -> Chain:
        """The chain of a subagent, which never branches: back from its last message."""
        for entry in sorted(self._by_uuid.values(), key=self._place, reverse=True):
            if isinstance(entry, UserEntry | AssistantEntry):
                return self._back_from(entry)
        return []

    def _leaf(self) -> ConversationEntry | None:
        leaves = list(self._leaves())
        main = [leaf for leaf in leaves if _is_main(leaf) and not leaf.is_meta]
        return max(main or leaves, key=self._place, default=None)

    def _leaves(self) -> Iterator[ConversationEntry]:
        """The last message of every chain, whatever else comes behind it."""
        parents = {entry.parent_uuid for entry in self._by_uuid.values()}
        for uuid, entry in self._by_uuid.items():
            if uuid not in parents:
                for earlier in self._upwards(entry):
                    if isinstance(earlier, UserEntry | AssistantEntry):
                        yield earlier
                        break

    def _back_from(self, leaf: ConversationEntry) -> Chain:
        return list(self._upwards(leaf))[::-1]

    def _upwards(self, entry: ConversationEntry | None) -> Iterator[ConversationEntry]:
        seen: set[str | None] = set()
        while entry is not None and entry.uuid not in seen:
            seen.add(entry.uuid)
            yield entry
            entry = self._by_uuid.get(entry.parent_uuid) if entry.parent_uuid else None

    def _place(self, entry: ConversationEntry) -> int:
        return self._position[entry.uuid or ""]


class _Responses:
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
        on_chain = _uuids(chain) | elsewhere
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
                on_chain |= _uuids(found)
                missing[ends[response].uuid or ""] = found
        return [each for entry in chain for each in (entry, *missing.get(entry.uuid or "", ()))]

    def _missing_results(
        self, parts: Sequence[AssistantEntry], on_chain: set[str], answered: set[str]
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
        answered = answered.union(call for result in found for call in _answers(result))
        for stray in sorted(strays, key=lambda entry: self._place[entry.uuid or ""]):
            open_calls = set(_answers(stray)) - answered
            callers = (self._callers.get(call) for call in open_calls)
            if any(caller is not None and caller.uuid in homes for caller in callers):
                answered.update(_answers(stray))
                found.append(stray)
        return found


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
