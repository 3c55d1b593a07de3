"""What keeps one unit test from another."""

import pytest

from backup.core import log


@pytest.fixture(autouse=True)
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets the secrets that a test registers, for what it calls one may be a common word of another's."""
    monkeypatch.setattr(log, "_secrets", set())
