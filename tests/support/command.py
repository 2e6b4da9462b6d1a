"""The installed command, as its users call it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN = "from beanie_session_store.app.cli.root import main; main()"


@dataclass(frozen=True)
class Finished:
    """How a call ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


@dataclass(frozen=True)
class SessionStoreCommand:
    """``session-store`` on one database."""

    url: str
    database: str

    async def __call__(
        self, *arguments: Any, cwd: Path | None = None, **environment: str
    ) -> Finished:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, *map(str, arguments)),
            env={
                **os.environ,
                "SESSION_STORE_MONGODB_URL": self.url,
                "SESSION_STORE_DATABASE": self.database,
                **environment,
            },
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = (part.decode() for part in await process.communicate())
        assert "Traceback" not in errors, errors
        assert process.returncode is not None
        return Finished(process.returncode, output, errors)
