"""Reading files that are damaged: what is whole of them is read, and the rest is named."""

from __future__ import annotations

import codecs
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.entries import KEY, message, turn

from beanie_session_store import BeanieSessionStore, import_transcripts
from beanie_session_store.app.files.damage import salvaged
from beanie_session_store.app.files.jsonl import BrokenLine, batches, json_line

ENTRIES = [*turn(1), message('ends with a brace } and a quote " and {"type": "user"}'), *turn(2)]
LINES = [json_line(entry) for entry in ENTRIES]
CUT = b'{"type":"us'


def read(path: Path, data: bytes) -> tuple[list[Any], list[BrokenLine]]:
    path.write_bytes(data)
    broken: list[BrokenLine] = []
    entries = [entry for batch in batches(path, broken.append) for entry in batch.entries]
    return entries, broken


def joined(*lines: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(line + end for line in lines)


@pytest.mark.parametrize("between", [b"", b" ", b"\t ", b"\0" * 700, codecs.BOM_UTF8, b"\0 \0"])
def test_records_on_one_line_are_all_read(tmp_path: Path, between: bytes) -> None:
    data = joined(LINES[0], between.join(LINES[1:5]), LINES[5], between.join(LINES[6:]))
    assert read(tmp_path / "f.jsonl", data) == (ENTRIES, [])


@pytest.mark.parametrize("before", [b"\0" * 512, codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\0", b" "])
def test_what_stands_before_and_behind_a_record_costs_none(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "f.jsonl"
    for data in (
        before + joined(*LINES),
        joined(*(before + line for line in LINES)),
        joined(*(line + before for line in LINES)),
        joined(*LINES[:3]) + before + joined(*LINES[3:]),
        joined(*LINES)[:-1] + before,
    ):
        assert read(path, data) == (ENTRIES, [])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\n\r", b"\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("has_mark", [True, False])
def test_line_ends_and_encodings(tmp_path: Path, end: bytes, encoding: str, has_mark: bool) -> None:
    if encoding.startswith("utf-32") and not has_mark:
        pytest.skip("nothing and nobody writes it")
    entries = [*ENTRIES, message("ਊ Ċ \u2028 \x85 😀"), message("x" * 3_000_000)]
    text = ("\ufeff" if has_mark else "") + joined(*map(json_line, entries), end=end).decode()
    assert read(tmp_path / "f.jsonl", text.encode(encoding)) == (entries, [])


def test_utf_16_is_read_line_by_line_where_parts_of_it_are_damaged(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        lines = [line.decode().encode(encoding) for line in (LINES[0], CUT, *LINES[1:])]
        data = joined(*lines, end="\n".encode(encoding))
        found, broken = read(tmp_path / "f.jsonl", data[:-7])
        assert found == ENTRIES[:-1]
        assert [line.number for line in broken] == [2, len(ENTRIES) + 1]


def test_a_whole_record_behind_a_cut_one_is_read_wherever_that_was_cut(tmp_path: Path) -> None:
    first = message(
        'a "quoted" \\ é\n[{', number=-1.5e-7, flags=[True, None, {"type": "text", "text": "x"}]
    )
    for line in (json_line(first), json.dumps(first).encode()):
        for cut in range(1, len(line)):
            data = joined(LINES[0], line[:cut] + LINES[1] + LINES[2], LINES[3])
            found, broken = read(tmp_path / "f.jsonl", data)
            # A marker has no uuid, but says of which session it is.
            assert found == ENTRIES[:4], line[:cut]
            assert [(each.number, each.records) for each in broken] == [(2, 2)], line[:cut]


def test_several_cut_records_cost_none_of_the_whole_ones(tmp_path: Path) -> None:
    data = joined(CUT + CUT + LINES[0] + CUT + LINES[1] + b"\0" * 9 + LINES[2] + CUT, *LINES[3:])
    found, broken = read(tmp_path / "f.jsonl", data)
    assert found == ENTRIES
    assert [(each.number, each.records) for each in broken] == [(1, 3)]


def test_parts_of_a_cut_record_are_not_taken_for_records(tmp_path: Path) -> None:
    block = {"type": "text", "text": "hi"}
    line = json_line(message(message={"role": "user", "content": [block, block]}))
    for cut in range(1, len(line)):
        found, broken = read(tmp_path / "f.jsonl", joined(line[:cut], LINES[0]))
        assert found == ENTRIES[:1], line[:cut]
        assert [(each.number, each.records) for each in broken] == [(1, 0)]


def test_bytes_that_are_no_text_spoil_one_record(tmp_path: Path) -> None:
    bad = LINES[1].replace(b"prompt", b"pr\xffmpt")
    assert bad != LINES[1]
    found, broken = read(tmp_path / "f.jsonl", joined(LINES[0] + bad + LINES[2], *LINES[3:]))
    assert found == [ENTRIES[0], *ENTRIES[2:]]
    ((number, reason, records),) = [(each.number, each.reason, each.records) for each in broken]
    assert (number, records) == (1, 2)
    assert f"no UTF-8 at byte {len(LINES[0]) + bad.index(0xFF)}" in reason


def test_zeros_before_and_behind_records_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl"
    zeros = 64 * 1024 * 1024
    with path.open("wb") as file:
        file.seek(zeros)
        file.write(LINES[0])
        file.seek(2 * zeros)
        file.write(LINES[1] + b"\n" + LINES[2])
        file.truncate(4 * zeros)
    broken: list[Any] = []
    tracemalloc.start()
    try:
        found = [entry for batch in batches(path, broken.append) for entry in batch.entries]
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert (found, broken) == (ENTRIES[:3], [])


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"a":' * 100_000, id="nested without end"),
        pytest.param(b'{"a":[' + b'{"b":1},' * 100_000, id="many parts"),
        pytest.param(b'{"type":"us' * 50_000, id="many cut"),
        pytest.param(b'{"type":"x","uuid":"1","a":' * 20_000, id="nested records"),
        pytest.param(b"{" * 300_000, id="braces"),
        pytest.param(b'{"' * 300_000, id="quotes"),
    ],
)
def test_hostile_lines_take_time_in_proportion(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beanie_session_store.app.files import damage

    decode = damage._decode
    read = 0

    def counted(text: str, at: int) -> Any:
        nonlocal read
        try:
            value, end = decode(text, at)
        except json.JSONDecodeError as error:
            # To make the error, all before it was looked through for newlines.
            read += error.pos - at + 1 + error.pos // 16
            raise
        read += end - at
        return value, end

    monkeypatch.setattr(damage, "_decode", counted)
    salvaged(line)
    assert read <= 32 * len(line)


@given(st.lists(st.sampled_from([*LINES, b"\0", b" ", CUT, b"\xff", b"}", b"]", b'"', b"\\"])))
def test_no_whole_line_is_lost_without_a_word(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = salvaged(data)
    # Whatever damage is in between, a record that begins a line or follows one is whole.
    whole = [json.loads(part) for part in parts if part in LINES]
    assert found.reason is not None or found.records == whole
    assert all(record in whole for record in found.records)


async def test_an_import_says_what_was_read_of_a_damaged_line(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    path = tmp_path / "project" / "session.jsonl"
    path.parent.mkdir()
    path.write_bytes(joined(CUT + LINES[0], *LINES[1:], CUT))
    report = await import_transcripts(store, tmp_path)
    assert await store.load(KEY) == ENTRIES
    assert report.skipped_lines == 2
    first, last = report.problems
    assert (first.where, last.where) == (f"{path}:1", f"{path}:{len(ENTRIES) + 1}")
    assert first.reason.endswith("1 whole record of the line was read")
    assert last.reason.endswith("; skipped")
    again = await import_transcripts(store, tmp_path)
    assert (again.entries, again.skipped_lines) == (0, 2)
