"""Says which promises of the session store a history breaks.

Every batch has tokens of its own, so each load tells the order in which the server took the
batches; what is left to check is whether that order, and what a load lacks, can be explained by
the real time of the operations. An explanation that is possible counts: it never accuses
falsely, and where a delete of unknown outcome is around it may let something pass.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from claude_agent_sdk import fold_session_summary

from .history import FAIL, OK, Key, Op
from .tokens import DAMAGED, NO_IDENTITY, entry_of
from .worker import digest

FINAL = "final"
"""The process that reads everything once all faults are healed and all writers are done."""
SESSION_ORDER = "session order"
"""A kind of operation: the entries of a whole session by ``seq``, as the final reader saw them."""

LOST = "acknowledged append lost"
STALE = "load misses an append acknowledged before it"
BACKWARDS = "load goes back in time"
DOUBLED = "entry doubled"
PARTIAL = "part of a batch"
DISORDERED = "batches against real time"
DIVERGED = "two loads disagree on the order"
FOREIGN = "entry from elsewhere"
CHANGED = "entry changed"
UNDEAD = "deleted batch is back"
REFUSED = "failed append is stored"
UNLISTED = "session or subagent not listed"
MTIME = "mtime does not rise"
SUMMARY = "summary is not the fold"

OF_THE_PAST = frozenset({STALE, BACKWARDS, UNDEAD, UNLISTED, MTIME})
"""What a deposed primary may answer until it knows that it is none: what was true before."""


@dataclass(frozen=True)
class Finding:
    """A broken promise, and where."""

    kind: str
    key: Key
    what: str
    read: tuple[float, float] | None = field(default=None, compare=False)
    """When the read began and ended that saw the past, for the kinds in ``OF_THE_PAST``."""


@dataclass
class _Batch:
    """A batch of one transcript with all the tries to store it that may have."""

    tokens: list[str]
    tries: list[Op] = field(default_factory=list)

    @property
    def start(self) -> float:
        return min((op.start for op in self.tries), default=math.inf)

    @property
    def end(self) -> float:
        return max((op.end for op in self.tries), default=-math.inf)

    def acknowledged_before(self, time: float) -> Op | None:
        done = [op for op in self.tries if op.outcome == OK and op.end < time]
        return max(done, key=lambda op: op.start, default=None)


@dataclass
class _Transcript:
    key: Key
    batches: dict[str, _Batch] = field(default_factory=dict)
    owner: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Token to batch and position."""
    loads: list[Op] = field(default_factory=list)
    deletes: list[Op] = field(default_factory=list)
    seen: dict[int, list[str]] = field(default_factory=dict)
    """The batches of each load, by the load's index."""


def check(history: Iterable[Op]) -> list[Finding]:
    """All findings of a history, each once."""
    ops = list(history)
    transcripts = _transcripts(ops)
    findings: dict[Finding, None] = {}
    for transcript in transcripts.values():
        findings |= dict.fromkeys(_check_transcript(transcript))
    findings |= dict.fromkeys(_check_session_order(ops, transcripts))
    findings |= dict.fromkeys(_check_listings(ops, transcripts))
    return list(findings)


def _transcripts(ops: Sequence[Op]) -> dict[Key, _Transcript]:
    found: dict[Key, _Transcript] = {}
    for op in ops:
        if op.kind in ("append", "load", "reimport"):
            transcript = found.setdefault(op.key, _Transcript(op.key))
            if op.kind == "load" and op.outcome == OK:
                transcript.loads.append(op)
            if op.kind == "append":
                batch = transcript.batches.setdefault(op.batch, _Batch(op.tokens))
                for position, token in enumerate(op.tokens):
                    if token[0] != NO_IDENTITY:
                        transcript.owner[token] = (op.batch, position)
                if op.outcome != FAIL:
                    batch.tries.append(op)
    for op in ops:
        if op.kind == "reimport" and op.outcome != FAIL:
            transcript = found[op.key]
            names = {transcript.owner[t][0] for t in op.tokens if t in transcript.owner}
            for name in names:
                transcript.batches[name].tries.append(op)
        if op.kind == "delete" and op.outcome != FAIL:
            for key, transcript in found.items():
                if key[:3] == op.key[:3] and op.key[3] in ("", key[3]):
                    transcript.deletes.append(op)
    return found


def _check_transcript(transcript: _Transcript) -> Iterator[Finding]:
    for index, load in enumerate(transcript.loads):
        batches, findings = _parse(load.tokens, transcript, transcript.key)
        transcript.seen[index] = batches
        yield from findings
        yield from _check_order(batches, transcript, transcript.key)
        yield from _check_missing(load, batches, transcript)
        yield from _check_present(load, batches, transcript)
    yield from _check_agreement(transcript)
    yield from _check_progress(transcript)


def _parse(
    tokens: Sequence[str], transcript: _Transcript, key: Key
) -> tuple[list[str], list[Finding]]:
    """The batches of a load, in order, and what is wrong with their entries."""
    batches: list[str] = []
    findings: list[Finding] = []
    at = 0
    while at < len(tokens):
        ahead = at
        while ahead < len(tokens) and tokens[ahead][0] == NO_IDENTITY:
            ahead += 1
        if ahead == len(tokens):
            findings.append(Finding(PARTIAL, key, f"{tokens[at:]} at the end"))
            break
        token = tokens[ahead]
        if token not in transcript.owner:
            kind = CHANGED if token[0] == DAMAGED else FOREIGN
            findings.append(Finding(kind, key, token))
            at = ahead + 1
            continue
        batch, position = transcript.owner[token]
        expected = transcript.batches[batch].tokens
        start = ahead - position
        if batch in batches:
            findings.append(Finding(DOUBLED, key, f"{token} of {batch}"))
            at = ahead + 1
            continue
        batches.append(batch)
        if start == at and list(tokens[at : at + len(expected)]) == expected:
            at += len(expected)
            continue
        # Go on behind what is there of it; what follows without identity may be the next one's.
        end = ahead + 1
        for later in range(end, len(tokens)):
            if tokens[later][0] != NO_IDENTITY:
                if transcript.owner.get(tokens[later], ("",))[0] != batch:
                    break
                end = later + 1
        rest = expected[transcript.owner.get(tokens[end - 1], ("", 0))[1] + 1 :]
        if rest == list(tokens[end : end + len(rest)]):
            end += len(rest)
        got = list(tokens[at:end])
        named = [name for name in got if name[0] != NO_IDENTITY]
        kind = DOUBLED if len(set(named)) < len(named) or len(got) > len(expected) else PARTIAL
        findings.append(Finding(kind, key, f"{batch}: {got} instead of {expected}"))
        at = end
    return batches, findings


def _check_order(batches: Sequence[str], transcript: _Transcript, key: Key) -> Iterator[Finding]:
    latest = -math.inf
    latest_name = ""
    for name in batches:
        batch = transcript.batches[name]
        if batch.end < latest:
            yield Finding(
                DISORDERED, key, f"{name} ended before {latest_name} began, but comes after it"
            )
        if batch.tries and batch.start > latest:
            latest, latest_name = batch.start, name


def _may_be_deleted(
    transcript: _Transcript, since: float, load: Op, batches: Iterable[str]
) -> bool:
    """Whether a delete can have come after ``since`` and before all that the load has."""
    until = min((transcript.batches[name].end for name in batches), default=math.inf)
    until = min(until, load.end)
    return any(delete.end > since and delete.start < until for delete in transcript.deletes)


def _check_missing(load: Op, batches: Sequence[str], transcript: _Transcript) -> Iterator[Finding]:
    present = set(batches)
    for name, batch in transcript.batches.items():
        if name in present:
            continue
        done = batch.acknowledged_before(load.start)
        if done is not None and not _may_be_deleted(transcript, done.start, load, batches):
            kind = LOST if load.process == FINAL else STALE
            yield Finding(kind, transcript.key, name, (load.start, load.end))


def _check_present(load: Op, batches: Sequence[str], transcript: _Transcript) -> Iterator[Finding]:
    deleted = max(
        (op.start for op in transcript.deletes if op.outcome == OK and op.end < load.start),
        default=-math.inf,
    )
    for name in batches:
        batch = transcript.batches[name]
        if not batch.tries:
            yield Finding(REFUSED, transcript.key, name)
        elif batch.start > load.end:
            yield Finding(FOREIGN, transcript.key, f"{name}, which was not sent yet")
        elif batch.end < deleted:
            yield Finding(UNDEAD, transcript.key, name, (load.start, load.end))


def _check_agreement(transcript: _Transcript) -> Iterator[Finding]:
    """Loads that begin alike are of one life of the transcript: one is the other's beginning."""
    lives: dict[str, list[list[str]]] = defaultdict(list)
    for batches in transcript.seen.values():
        if batches:
            lives[batches[0]].append(batches)
    for first, life in lives.items():
        if transcript.deletes and len(transcript.batches[first].tries) > 1:
            continue
        longest = max(life, key=len)
        for batches in life:
            if longest[: len(batches)] != batches:
                at = next(i for i, name in enumerate(batches) if longest[i] != name)
                what = f"{batches[at]} or {longest[at]} at {at}"
                yield Finding(DIVERGED, transcript.key, what)


def _check_progress(transcript: _Transcript) -> Iterator[Finding]:
    for index, load in enumerate(transcript.loads):
        batches = transcript.seen[index]
        present = set(batches)
        for before, earlier in enumerate(transcript.loads):
            seen = transcript.seen[before]
            if earlier.end < load.start and seen and seen[-1] not in present:
                if _may_be_deleted(transcript, earlier.start, load, batches):
                    continue
                yield Finding(BACKWARDS, transcript.key, seen[-1], (load.start, load.end))


def _check_session_order(
    ops: Sequence[Op], transcripts: dict[Key, _Transcript]
) -> Iterator[Finding]:
    """Batches of main and subagent transcripts are in one order, by ``seq``."""
    for op in ops:
        if op.kind == SESSION_ORDER:
            merged = _Transcript(op.key)
            for key, transcript in transcripts.items():
                if key[:3] == op.key[:3]:
                    merged.batches |= transcript.batches
                    merged.owner |= transcript.owner
            batches, findings = _parse(op.tokens, merged, op.key)
            yield from findings
            yield from _check_order(batches, merged, op.key)


def _check_listings(ops: Sequence[Op], transcripts: dict[Key, _Transcript]) -> Iterator[Finding]:
    listings = [op for op in ops if op.kind.startswith("list_") and op.outcome == OK]
    sessions = [op for op in listings if op.kind != "list_subkeys"]
    for op in listings:
        if op.kind == "list_subkeys":
            listed = {(*op.key[:3], row[0]) for row in op.rows}
            expected = [transcripts[key] for key in transcripts if key[:3] == op.key[:3] and key[3]]
        else:
            listed = {(*op.key[:2], row[0], "") for row in op.rows}
            expected = [
                transcripts[key] for key in transcripts if key[:2] == op.key[:2] and not key[3]
            ]
        yield from _check_listed(op, listed, expected, transcripts)
    for transcript in transcripts.values():
        if transcript.key[3] == "":
            yield from _check_mtime(transcript, sessions)
            yield from _check_summaries(transcript, sessions)


def _check_listed(
    op: Op, listed: set[Key], expected: Iterable[_Transcript], transcripts: dict[Key, _Transcript]
) -> Iterator[Finding]:
    for transcript in expected:
        if transcript.key in listed:
            continue
        done = [batch.acknowledged_before(op.start) for batch in transcript.batches.values()]
        since = max((ack.start for ack in done if ack), default=None)
        if since is not None and not _may_be_deleted(transcript, since, op, ()):
            yield Finding(UNLISTED, transcript.key, op.kind, (op.start, op.end))
    for key in listed - transcripts.keys():
        yield Finding(FOREIGN, key, f"in {op.kind} of {op.key[0]}")


def _check_mtime(transcript: _Transcript, listings: Sequence[Op]) -> Iterator[Finding]:
    """Of one session that is never deleted: never back, and on with every new batch."""
    if transcript.deletes:
        return
    seen = sorted(
        (op.end, op.start, row[1])
        for op in listings
        if op.key[:2] == transcript.key[:2]
        for row in op.rows
        if row[0] == transcript.key[2]
    )
    ends = [end for end, _, _ in seen]
    highest = list(accumulate((mtime for _, _, mtime in seen), max))
    # Only of a batch sent once is it certain when it was stored.
    fresh = sorted(
        (batch.tries[0].end, batch.tries[0].start)
        for batch in transcript.batches.values()
        if len(batch.tries) == 1 and batch.tries[0].outcome == OK
    )
    stored = [end for end, _ in fresh]
    begun = list(accumulate((start for _, start in fresh), max))
    for end, start, mtime in seen:
        before = bisect_left(ends, start)
        if before and mtime < highest[before - 1]:
            what = f"{mtime} after {highest[before - 1]}"
            yield Finding(MTIME, transcript.key, what, (start, end))
        done = bisect_left(stored, start)
        if done:
            before = bisect_left(ends, begun[done - 1])
            if before and mtime <= highest[before - 1]:
                what = f"{mtime} in spite of an append after {highest[before - 1]}"
                yield Finding(MTIME, transcript.key, what, (start, end))


def _check_summaries(transcript: _Transcript, listings: Sequence[Op]) -> Iterator[Finding]:
    """Every listed fold is that of a beginning of the transcript; the last one of all of it."""
    final = [index for index, op in enumerate(transcript.loads) if op.process == FINAL]
    if not final:
        # The run was cut off: what came behind the last load is not known.
        return
    if transcript.deletes:
        log = transcript.seen[final[-1]]
    else:
        log = max(transcript.seen.values(), key=len, default=[])
    key = {"project_key": transcript.key[1], "session_id": transcript.key[2]}
    lengths: dict[str, int] = {}
    summary = None
    for length, name in enumerate(log, 1):
        entries = [entry_of(token) for token in transcript.batches[name].tokens]
        summary = fold_session_summary(summary, key, entries)
        lengths[digest(summary["data"])] = length
    for op in listings:
        if op.kind != "list_session_summaries" or op.key[:2] != transcript.key[:2]:
            continue
        if transcript.deletes and op.process != FINAL:
            continue
        for session, _, fold in op.rows:
            if session != transcript.key[2]:
                continue
            length = lengths.get(fold)
            if length is None or (op.process == FINAL and length < len(log)):
                yield Finding(SUMMARY, transcript.key, f"{op.process}: fold {fold}")
            elif op.process != FINAL:
                for name in log[length:]:
                    if transcript.batches[name].acknowledged_before(op.start):
                        what = f"summary lacks {name}"
                        yield Finding(STALE, transcript.key, what, (op.start, op.end))
