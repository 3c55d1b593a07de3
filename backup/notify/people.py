"""People as a sink: what an event says in plain words, sent by Apprise to chat, e-mail and many other services."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backup.core.log import hide_addresses
from backup.core.suggestions import did_you_mean, quantity
from backup.jobs.events import DIGEST, OVERDUE, RECOVERED, TEST
from backup.notify.sink import NamedSink, NotDelivered, Send, install_hint

_HINT = install_hint("people", "messages")


@dataclass(frozen=True)
class People(NamedSink):
    """One address of Apprise."""

    address: str = field(repr=False)

    @contextmanager
    def opened(self) -> Iterator[Send]:
        """As `Sink` says."""
        try:
            import apprise
        except ImportError:
            raise NotDelivered("Messages need the package apprise, which is not installed.", hint=_HINT) from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines may have parts of an address
        hide_addresses()
        service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="backup", app_desc="backup-services"))
        if not service.add(self.address):
            scheme = self.address.partition("://")[0]
            schemes = {str(name) for plugin in apprise.Apprise().details()["schemas"] for name in _schemes(plugin)}
            meant = "" if scheme.lower() in schemes else did_you_mean(scheme, schemes)
            raise NotDelivered(
                f"Apprise does not know an address like {scheme}://…, or a part of it is missing.{meant}",
                hint="Apprise's documentation has the form of the address for each service.",
            )

        def send(event: Mapping[str, Any]) -> None:
            try:
                title, text = message_of(event)
            except (KeyError, ValueError):  # an event that another release wrote
                title, text = f"Backup: {event['type']}", json.dumps(event["data"], indent=1)
            kind = "failure" if "failed" in title or "silent" in title or "stopped" in title else "info"
            try:
                was_taken = bool(service.notify(body=text, title=title, notify_type=kind, body_format="text"))
            except Exception as error:
                raise NotDelivered(f"Apprise could not send it ({type(error).__name__}).") from None
            if not was_taken:
                raise NotDelivered("The service did not take it.", hint="Check the address and what it may do.")

        yield send


def _schemes(plugin: Mapping[str, Any]) -> list[str]:
    return [*(plugin["protocols"] or ()), *(plugin["secure_protocols"] or ())]


def message_of(event: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the title and the text for people."""
    data, kind = event["data"], event["type"]
    if kind == TEST:
        return "Backup: a test", data["message"]
    if kind == DIGEST:
        return _digest(data)
    service = data["service"]
    if kind == OVERDUE:
        last = f"The last one was at {data['lastSuccess']}." if data.get("lastSuccess") else "There has been none yet."
        lines = [
            f"No sync of {service} has succeeded for {quantity(data['ageHours'], 'hour')}; "
            f"{quantity(data['maxAgeHours'], 'is', 'are')} allowed.",
            last,
            *_error_lines(data),
        ]
        return f"Backup: {service} is silent", "\n".join(lines)
    if kind == RECOVERED:
        return f"Backup: {service} is back", f"A sync of {service} has succeeded again at {data['completedAt']}."
    verb, ending = kind.split(".")[1:3]
    ending = "stopped by the guard" if ending == "guard-tripped" else ending
    always = ("inserted", "updated", "deleted")
    counts = ", ".join(f"{number} {name}" for name, number in data["counts"].items() if number or name in always)
    lines = [f"Ended at {data['completedAt']}: {counts}.", *_error_lines(data), f"Run {data['syncId']}"]
    return f"Backup: {verb} of {service} {ending}", "\n".join(lines)


def _digest(data: Mapping[str, Any]) -> tuple[str, str]:
    bad = data["failed"] + len(data["overdue"])
    title = f"Backup: {quantity(data['completed'], 'sync')} completed, {data['failed']} failed"
    lines = [f"From {data['from']} to {data['to']}."]
    lines += [f"{name} is silent: no sync has succeeded for too long." for name in data["overdue"]]
    for row in data["services"]:
        error = f" Last error: {row['error']}" if row.get("error") else ""
        changes = f"{row['inserted']} inserted, {row['updated']} updated, {row['deleted']} deleted"
        lines.append(f"{row['service']}: {row['completed']} completed, {row['failed']} failed; {changes}.{error}")
    if not data["isComplete"]:
        lines.append("There were more runs than a digest reads; the history has all of them.")
    return title if bad == data["failed"] else f"{title}, {len(data['overdue'])} silent", "\n".join(lines)


def _error_lines(data: Mapping[str, Any]) -> list[str]:
    error = " ".join(filter(None, (data.get("errorKind"), data.get("error"))))
    return [line for line in (error, data.get("hint")) if line]
