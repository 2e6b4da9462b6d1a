from collections.abc import Iterator

import pytest
from support.telemetry import Recorded, recording


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """What the store tells OpenTelemetry meanwhile."""
    with recording(monkeypatch) as found:
        yield found
