"""What a run ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from beanie_session_store.app.embedded.mongod_program import find_mongod

from .servers import postgres_programs, redis_program

_PACKAGES = (
    "beanie-session-store",
    "beanie",
    "pymongo",
    "motor",
    "pydantic",
    "claude-agent-sdk",
    "redis",
    "asyncpg",
)


def described() -> dict[str, str]:
    """Names and values, for people."""
    postgres = postgres_programs()
    redis = redis_program()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "load average at the start": load_average(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "MongoDB": _first_line([str(find_mongod()), "--version"]),
        "Redis": _first_line([redis, "--version"]) if redis else "not installed",
        "PostgreSQL": (
            _first_line([str(postgres / "postgres"), "--version"]) if postgres else "not installed"
        ),
        "packages": ", ".join(
            f"{package} {found}" for package in _PACKAGES if (found := _version(package))
        ),
    }


def load_average() -> str:
    """Over the last minute, or ``unknown``."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
