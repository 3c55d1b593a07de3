"""Processes as the entries of SyncHistory name them, and whether a process of this machine is gone."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_FIRST_CLOCK = "4026531834"
"""The namespace of the clock that a machine starts with."""


@dataclass(frozen=True)
class Process:
    """A process: its machine, with the id of that machine's start; its number there, and when it was started."""

    host: str
    boot: str
    namespace: str
    number: int
    started: str

    def __str__(self) -> str:
        return f"{self.host} boot={self.boot} pidns={self.namespace} pid={self.number} started={self.started}"

    @classmethod
    def read(cls, text: str) -> Process | None:
        """The process that `str` has written as this text; None for any other text."""
        host, *named = text.split(" ")
        values = [part.partition("=")[2] for part in named]
        if len(values) != 4 or not (values[2].isascii() and values[2].isdigit() and len(values[2]) < 10):
            return None
        return cls(host, values[0], values[1], int(values[2]), values[3])

    @property
    def is_gone(self) -> bool:
        """Whether the process surely does not run any more. False for processes of other machines, and of this machine
        before its last start: nobody can tell."""
        here = this_process()
        if (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace) or sys.platform == "win32":
            return False
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it runs for another user
        now = _started(self.number)
        return bool(self.started and now) and now != self.started


def this_process() -> Process:
    """The process that runs this."""
    return _process(os.getpid())


@lru_cache(maxsize=1)
def _process(number: int) -> Process:
    host = "_".join(socket.gethostname().split())[:64] or "-"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = _namespace("pid")
    except OSError:
        boot, namespace = f"{uuid.getnode():x}", ""
    with suppress(OSError):  # an old kernel has none
        if (clock := _namespace("time")) != _FIRST_CLOCK:  # by another clock, a process was started at another time
            boot = f"{boot}-{clock}"
    return Process(host, boot, namespace, number, _started(number))


def _namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink()).partition("[")[2].strip("]")


def _started(number: int) -> str:
    """When the process was started, in ticks of its machine; `dead` for a zombie; empty if the system does not say."""
    try:
        if Path("/proc/self").readlink().name != str(os.getpid()):
            return ""  # it has the numbers of another namespace
        # After the name, which may have any characters, come the state and, as the twentieth value, the time of start.
        parts = Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "dead" if parts[0] in "ZX" else parts[19]
    except (OSError, IndexError):
        return ""
