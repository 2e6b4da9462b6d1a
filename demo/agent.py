"""A host that runs the real agent: an empty home, a clean environment, no outside connection.

host = Host(home, api_url=api.url)
first = host.run("Run `ls`", store=Target(mongo.url, "demo"), cwd=work)
other.run("And then?", store=..., cwd=work, resume=first.session_id)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beanie_session_store.app.loopback.environment import agent_settings, loopback_settings

Entry = dict[str, Any]

NOT_MIRRORED = frozenset(
    {"api-request", "api-request-shape", "api-request-blob", "api-request-resumed"}
)
"""Kinds the agent writes to its disk alone: records of its requests, not of the conversation."""

NOT_ON_DISK = frozenset({"agent_metadata"})
"""Kinds the agent hands to the store alone; on disk they are a ``.meta.json`` file."""

PYTHON = (sys.executable, "-I")
"""What runs a host's Python files, apart from the folder and the packages of whoever runs it."""

_PROCESS = Path(__file__).with_name("agent_process.py")
_FOR_THE_REAL_API = ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


class AgentRunError(RuntimeError):
    """The agent's process failed, or ran for too long."""


@dataclass(frozen=True)
class Target:
    """Where the session store is."""

    url: str
    database: str
    tenant: str = "default"


@dataclass(frozen=True)
class Run:
    """What one run of the agent came to."""

    session_id: str
    result: str | None
    is_error: bool
    mirror_errors: tuple[str, ...]
    home: Path

    def transcripts(self) -> dict[str, list[Entry]]:
        """The session's transcripts on this host's disk by subpath; ``""`` is the main one."""
        found: dict[str, list[Entry]] = {}
        for path in sorted((self.home / ".claude" / "projects").glob("*/**/*.jsonl")):
            session, *below = path.relative_to(self.home / ".claude" / "projects").parts[1:]
            if session.removesuffix(".jsonl") == self.session_id:
                subpath = "/".join(below).removesuffix(".jsonl")
                found[subpath] = read_lines(path)
        return found


@dataclass(frozen=True)
class Host:
    """A machine of its own as far as the agent can tell."""

    home: Path
    api_url: str | None = None
    api_key: str = "not-a-real-key"

    def run(
        self,
        prompt: str,
        *,
        store: Target,
        cwd: Path,
        record: Path | None = None,
        timeout: float = 600,
        **options: Any,
    ) -> Run:
        """Run one prompt to its end; ``options`` are those of ``ClaudeAgentOptions``."""
        job = {
            "url": store.url,
            "database": store.database,
            "tenant": store.tenant,
            "prompt": prompt,
            "record": record and str(record),
            "options": {"cwd": str(cwd), "max_turns": 10} | options,
        }
        (self.home / "tmp").mkdir(parents=True, exist_ok=True)
        outcome = _last_line(run_python([str(_PROCESS)], self.environment(), job, timeout))
        return Run(
            session_id=outcome["session_id"],
            result=outcome["result"],
            is_error=outcome["is_error"],
            mirror_errors=tuple(outcome["mirror_errors"]),
            home=self.home,
        )

    def environment(self) -> dict[str, str]:
        """All that the host's processes see: nothing of this process's own environment."""
        place = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
        if self.api_url:
            return place | loopback_settings(self.home, self.api_url)
        real = {k: os.environ[k] for k in _FOR_THE_REAL_API if k in os.environ}
        return place | agent_settings(self.home) | real | {"ANTHROPIC_API_KEY": self.api_key}


def read_lines(path: Path) -> list[Entry]:
    """The entries of a JSONL file. Lines end at newlines alone, whatever else is in them."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def mirrored(entries: list[Entry]) -> list[Entry]:
    """The part of a transcript that disk and store have in common."""
    return [entry for entry in entries if entry.get("type") not in NOT_MIRRORED | NOT_ON_DISK]


def run_python(arguments: list[str], environment: dict[str, str], job: Any, timeout: float) -> str:
    """Run this interpreter apart from this process; end everything it started if it hangs."""
    return run_apart([*PYTHON, *arguments], environment, timeout, given=json.dumps(job))


def run_apart(
    command: list[str],
    environment: dict[str, str],
    timeout: float,
    *,
    given: str = "",
    cwd: Path | None = None,
) -> str:
    """Run a program apart from this process, and return what it says."""
    with subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(given, timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise AgentRunError(f"the agent did not finish within {timeout:g} s") from None
            raise
    if process.returncode != 0:
        reason = errors.strip()[-2000:] or f"exit status {process.returncode}"
        raise AgentRunError(f"the agent's process failed: {reason}")
    return output


def _last_line(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    if not lines:
        raise AgentRunError("the agent's process said nothing")
    outcome = json.loads(lines[-1])
    if "failure" in outcome:
        raise AgentRunError(outcome["failure"])
    if outcome["session_id"] is None:
        raise AgentRunError("the agent ended without a result")
    return outcome
