"""A loopback stand-in for the streaming Messages API: real HTTP, scripted answers.

It listens on a free port of 127.0.0.1, keeps every request body for inspection, refuses to
answer for ever (a runaway agent gets an error it does not retry), and ends with its block:

    with LoopbackMessagesApi(script) as api:
        ...  # ANTHROPIC_BASE_URL=api.url
    assert "hello" in json.dumps(api.requests[0])
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .replies import Block, Cut, Failure, Reply, Text
from .requests import ModelRequest

Json = dict[str, Any]
Script = Callable[[ModelRequest], Reply]
"""What to answer to a request; called on a thread of the server's, several at a time."""


@dataclass(frozen=True)
class Billed:
    """What a response took, by the log of the API."""

    id: str
    model: str
    usage: Json
    """As the API reports it at the end, also where that was never sent."""
    is_whole: bool
    """Whether the last count was sent."""


MAX_BODY_BYTES = 64 * 1024 * 1024


class LoopbackMessagesApi:
    """The server; ``requests`` may be read at any time, also while the agent runs."""

    def __init__(self, script: Script, *, max_replies: int = 200) -> None:
        self._script = script
        self._max_replies = max_replies
        self._requests: list[Json] = []
        self._billed: list[Billed] = []
        self._lock = threading.Lock()
        # The agent drops what repeats an id it has seen, also one from before a resume.
        self._name = secrets.token_hex(4)
        self._server = _HttpServer(("127.0.0.1", 0), _handler_for(self))

    def __enter__(self) -> LoopbackMessagesApi:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Json]:
        """The bodies received on ``/v1/messages`` so far, oldest first."""
        with self._lock:
            return list(self._requests)

    @property
    def billed(self) -> list[Billed]:
        """All responses that took tokens so far, in the order of the requests' answers."""
        with self._lock:
            return list(self._billed)

    def bill(self, message: Json, *, is_whole: bool) -> None:
        """Log what a response takes; called by the handler, on its thread."""
        with self._lock:
            self._billed.append(Billed(message["id"], message["model"], message["usage"], is_whole))

    def answer(self, request: Json) -> tuple[str, Reply]:
        """Name the reply and ask the script for it; called by the handler, on its thread."""
        with self._lock:
            number = len(self._requests)
            if number >= self._max_replies:
                raise ValueError(f"more than {self._max_replies} requests")
            self._requests.append(request)
        return f"{self._name}{number:06d}", self._script(ModelRequest.of(request))


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        # An agent that is ended in the middle of a request hangs up on it.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler_for(api: LoopbackMessagesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # a client that stalls frees its thread

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing: the terminal belongs to whoever runs the agent."""

        def do_GET(self) -> None:
            self._send_json(200, {})

        def do_HEAD(self) -> None:
            self._send_json(200, {})

        def do_POST(self) -> None:
            try:
                request = self._read_json()
                if self.path.partition("?")[0] != "/v1/messages":
                    return self._send_json(200, {"input_tokens": _tokens(request)})
                name, reply = api.answer(request)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                return self._send_json(400, _error("invalid_request_error", reason))
            if isinstance(reply, Failure):
                return self._send_json(reply.status, _error(reply.kind, reply.message))
            is_whole = not isinstance(reply, Cut)
            message = _message(name, request, reply.blocks if isinstance(reply, Cut) else reply)
            api.bill(message, is_whole=is_whole)
            if not request.get("stream"):
                return self._send_json(200, message)
            self._stream(_events(message, is_whole=is_whole))

        def _read_json(self) -> Json:
            size = int(self.headers.get("content-length", 0))
            if size > MAX_BODY_BYTES:
                self.close_connection = True
                raise ValueError("request too large")
            return json.loads(self.rfile.read(size) or b"{}")

        def _send_json(self, status: int, value: Json) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _stream(self, events: Iterator[Json]) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            with suppress(ConnectionError):  # the agent was stopped in the middle of a reply
                for event in events:
                    data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                    self.wfile.write(data.encode())
                    self.wfile.flush()

    return Handler


def _message(name: str, request: Json, blocks: Sequence[Block]) -> Json:
    content = [_content(block, f"{name}{index:02d}") for index, block in enumerate(blocks)]
    calls_tool = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model"),
        "content": content,
        "stop_reason": "tool_use" if calls_tool else "end_turn",
        "stop_sequence": None,
        "usage": _usage(request, content),
    }


def _content(block: Block, suffix: str) -> Json:
    if isinstance(block, Text):
        return {"type": "text", **asdict(block)}
    return {
        "type": "tool_use",
        "id": f"toolu_{suffix}",
        "name": block.name,
        "input": block.arguments,
    }


def _usage(request: Json, content: list[Json]) -> Json:
    """Numbers that differ from reply to reply, as real ones do: all but the end is cached."""
    new, total = _tokens(request.get("messages", [])[-1:]), _tokens(request)
    first = not any(m.get("role") == "assistant" for m in request.get("messages", []))
    written = total - new if first else 0
    for_an_hour = written // 3
    return {
        "input_tokens": new,
        "cache_creation_input_tokens": written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - for_an_hour,
            "ephemeral_1h_input_tokens": for_an_hour,
        },
        "cache_read_input_tokens": 0 if first else total - new,
        "output_tokens": _tokens(content),
    }


def _tokens(value: Any) -> int:
    return len(json.dumps(value)) // 4 + 1


def _events(message: Json, *, is_whole: bool) -> Iterator[Json]:
    """A message as the API streams it: its frame, then every block empty, filled and closed."""
    ending = {key: message[key] for key in ("stop_reason", "stop_sequence")}
    start: Json = message | {"content": [], "stop_reason": None}
    start["usage"] = message["usage"] | {"output_tokens": 1}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        empty: Json = {"text": ""} if block["type"] == "text" else {"input": {}}
        if block["type"] == "text":
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            arguments = json.dumps(block["input"])
            delta = {"type": "input_json_delta", "partial_json": arguments}
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    if not is_whole:
        return
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


def _error(kind: str, text: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": text}}
