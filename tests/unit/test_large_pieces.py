"""That the C library is asked to give memory back where it can be, and that nothing fails elsewhere."""

import ctypes
import platform
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from backup.core.memory import give_back_large_pieces


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    give_back_large_pieces.cache_clear()
    yield
    give_back_large_pieces.cache_clear()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_takes_the_thresholds() -> None:
    assert give_back_large_pieces()


def absent(_: object) -> Any:
    raise OSError("there is no C library that can be opened")


@pytest.mark.parametrize(
    "library", [absent, lambda _: SimpleNamespace(mallopt=lambda *_: 1), lambda _: SimpleNamespace()]
)
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not give_back_large_pieces()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert not give_back_large_pieces()
