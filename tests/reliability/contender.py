"""A process whose threads trigger a service's sync at the same moment, and can be held inside a store call.

`python -m tests.reliability.contender` takes commands on standard input and tells what happens on standard output,
both as JSON, one object a line. The commands, by `do`:

- `prepare`: make `triggers` threads for `service` under `settings`. Each run will be held once, after its first
  call of the backup's method `hold` (drift, write or delete). `lease_seconds` and `renew_seconds` shorten the lease.
- `go`: all threads at once.
- `release`: let the held ones go on; `release_once_lost`: when the lease's renewal has ended.

What is told, by `event`: `ready`, `called` (a `method` of the backup has returned), `holding`, `answer` (`status` and
`body` as HTTP would have them).
"""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from backup.config.settings import load_settings
from backup.core.unexpected import as_backup_error
from backup.entry import answers, http
from backup.runs import blob_lease, ownership
from backup.services.registry import Registry
from backup.stores.sql.catalog import SqlCatalog
from backup.stores.sql.relay import SqlRelay
from backup.stores.sql.writes import SqlWrites

DEADLINE_SECONDS = 100

_telling = threading.Lock()
_release = threading.Event()


def tell(event: str, **fields: Any) -> None:
    with _telling:
        print(json.dumps({"event": event, **fields}), flush=True)


def hold_after(method: str, wanted: Callable[[], str | None]) -> None:
    """Makes a store tell each call of the method, and wait after its first one if that method is `wanted`."""
    owners: dict[Any, str] = {{"drift": SqlCatalog}.get(method, SqlWrites): method}
    if method == "write":
        owners[SqlRelay] = "_transaction"  # what servers copy among themselves is written as well

    def hold(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def telling(self: Any, *arguments: Any, **options: Any) -> Any:
            result = original(self, *arguments, **options)
            tell("called", method=method)
            if wanted() == method and not self.__dict__.setdefault("_was_held", False):
                self.__dict__["_was_held"] = True
                tell("holding")
                _release.wait(DEADLINE_SECONDS)
            return result

        setattr(owner, name, telling)

    for owner, name in owners.items():
        hold(owner, name)


def trigger(start: threading.Barrier, settings: dict[str, str], service: str) -> None:
    """What function_app.py does on a request, from the moment that all are at the start."""
    start.wait(DEADLINE_SECONDS)
    try:
        answer = http.post_sync_of(Registry(load_settings(settings)), service, {}, b"")
    except Exception as error:
        answer = answers.error_answer(as_backup_error(error))
    tell("answer", status=answer.status, body=answer.body)


def main() -> None:
    ownership.HEARTBEAT_SECONDS = 50.0  # so that what a test says of its last heartbeat stays
    hold: str | None = None
    for method in ("drift", "write", "delete"):
        hold_after(method, lambda: hold)
    start = threading.Barrier(1)
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "prepare":
                hold = command["hold"]
                blob_lease.LEASE_SECONDS = command["lease_seconds"] or blob_lease.LEASE_SECONDS
                blob_lease.RENEW_SECONDS = command["renew_seconds"] or blob_lease.RENEW_SECONDS
                _release.clear()
                start = threading.Barrier(command["triggers"] + 1)
                for _ in range(command["triggers"]):
                    arguments = (start, command["settings"], command["service"])
                    threading.Thread(target=trigger, args=arguments, daemon=True).start()
                tell("ready")
            case "go":
                start.wait(DEADLINE_SECONDS)
            case "release":
                _release.set()
            case "release_once_lost":
                for thread in threading.enumerate():
                    if isinstance(thread, blob_lease._Renewal):
                        thread.join(DEADLINE_SECONDS)
                _release.set()


if __name__ == "__main__":
    main()
