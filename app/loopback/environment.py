"""The environment in which the real agent asks the model on loopback, and nobody else."""

from __future__ import annotations

from pathlib import Path

# What would lead the agent elsewhere, or tell it of the one that it was started by.
_PREFIXES = ("ANTHROPIC_", "CLAUDE")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


def agent_settings(home: Path) -> dict[str, str]:
    """The variables with which the agent has an empty home, and does nothing but its work.

    ``home`` must have a folder ``tmp``.
    """
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        # Lets it take its permissions as root too, as it must in a container.
        "IS_SANDBOX": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
    }


def loopback_settings(home: Path, api_url: str) -> dict[str, str]:
    """The same, with the model on loopback and a key that opens nothing."""
    return agent_settings(home) | {
        "ANTHROPIC_BASE_URL": api_url,
        "ANTHROPIC_API_KEY": "not-a-real-key",
    }


def leads_elsewhere(variable: str) -> bool:
    """Whether a variable of the surroundings must not reach an agent that is to stay here."""
    return variable.startswith(_PREFIXES) or variable.upper() in _PROXIES
