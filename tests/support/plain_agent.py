"""The agent's own program, as a person runs it: no SDK around it, and no store."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store.demo.agent import Host, run_apart


def resume(host: Host, session_id: str, prompt: str, cwd: Path) -> Any:
    """``claude --resume`` on a host, which must go well; what it says as JSON."""
    program = str(files("claude_agent_sdk") / "_bundled" / "claude")
    (host.home / "tmp").mkdir(parents=True, exist_ok=True)
    command = [program, "--resume", session_id, "--print", "--output-format", "json", prompt]
    return json.loads(run_apart(command, host.environment(), WATCHDOG_SECONDS, cwd=cwd))
