"""The examination: every check of the settings, the app's parts and each service's sides, as one list of findings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from backup.config.settings import Settings
from backup.core.errors import BackupError
from backup.core.model import Now, utc_now
from backup.core.retry import Retry
from backup.core.suggestions import quantity
from backup.doctor.app_parts import host_findings, job_findings, storage_checks, timer_findings, version_findings
from backup.doctor.findings import ALL_SECONDS, SERVER_SECONDS, Check, Finding, Grade, findings_of, fine, wrong
from backup.doctor.identities import identity_checks
from backup.doctor.sides import Examiner, place_key, server_check, service_checks, set_checks, subject_of
from backup.doctor.two_places import places_check, places_check_of_set
from backup.jobs.job_queue import open_job_queue
from backup.services.directory import Directory
from backup.services.registry import limits_of
from backup.services.sets import ServiceSet
from backup.services.spec import ServiceSpec
from backup.stores import SideName
from backup.stores.sides import Side

_ROLES: tuple[SideName, ...] = ("source", "backup")


def examine(
    settings: Settings, now: Now = utc_now, seconds: float = ALL_SECONDS, call_seconds: float = SERVER_SECONDS
) -> list[Finding]:
    """Returns what all checks have found, a subject's findings together: at most a few statements for each side, which
    change nothing.

    A server is asked once, in whose name the services on it are looked at; those on a server that does not answer are
    not. A call ends after `call_seconds`; all ends soon after `seconds`, whatever does not answer. Raises no error.
    """
    ends_at = time.monotonic() + seconds
    retry = Retry(max_attempts=1, unanswered_attempts=1)
    limits = replace(limits_of(settings), retry=retry, max_call_seconds=call_seconds)
    examiner = Examiner(limits, now)
    findings = [fine("settings", "settings", "can be used"), *version_findings(), *host_findings()]
    try:
        directory = Directory(settings, limits)
    except BackupError as error:
        return [wrong("settings", "services", error), *version_findings()]
    findings += timer_findings(settings, directory.entries, now())
    specs, broken = _whole_specs(directory)
    findings += broken
    if not directory.entries:
        text, hint = "no service is configured", "docs/configuration.md lists the settings of each."
        findings.append(Finding(Grade.FAILED, "settings", "services", text, hint))
    asked: list[tuple[Side, ServiceSpec | None]] = [
        *((side, spec) for spec in specs for side in (spec.source, spec.backup)),
        *((service_set.specs.side(role), None) for service_set in directory.sets.values() for role in _ROLES),
    ]
    readable, unreadable = _readable(examiner, asked)
    findings += unreadable
    first: dict[tuple[str, ...], tuple[Side, ServiceSpec | None]] = {}
    for side, spec in readable:
        first.setdefault(place_key(examiner, side), (side, spec))
    checks = [
        *storage_checks(settings, now),
        Check("jobs", "records", lambda: _of_jobs(settings, now)),
        *identity_checks(settings, [side for side, _ in first.values()], now),
    ]
    findings += findings_of(checks, ends_at)
    servers = [server_check(examiner, side, spec) for side, spec in first.values()]
    of_servers = findings_of(servers, ends_at)
    down = {
        finding.subject for finding in of_servers if finding.check == "connection" and finding.grade is not Grade.OK
    }
    silent = {key for key, (side, _) in first.items() if subject_of(side) in down}
    findings += [*of_servers, *_others_on(silent, first, readable, examiner)]
    findings += findings_of(_checks_of(examiner, specs, [*directory.sets.values()], readable, silent), ends_at)
    subjects = [*dict.fromkeys(finding.subject for finding in findings)]
    return sorted(findings, key=lambda finding: subjects.index(finding.subject))


def _of_jobs(settings: Settings, now: Now) -> list[Finding]:
    job_queue = open_job_queue(settings.model_copy(update={"retry_max_attempts": 1}), now)
    try:
        return job_findings(settings, job_queue)
    finally:
        job_queue.keys.close()


def _whole_specs(directory: Directory) -> tuple[list[ServiceSpec], list[Finding]]:
    """The services that have both sides, and what is missing of the others."""
    specs, findings = [], []
    for name in directory.own_names:
        try:
            spec = directory.find(name)[0]
            spec.check()
            specs.append(spec)
        except BackupError as error:
            findings.append(wrong(name, "settings", error))
    return specs, findings


def _readable(
    examiner: Examiner, asked: Sequence[tuple[Side, ServiceSpec | None]]
) -> tuple[list[tuple[Side, ServiceSpec | None]], list[Finding]]:
    """The sides whose connection strings can be read, and what is wrong with the others."""
    readable, findings = [], []
    for side, spec in asked:
        try:
            place_key(examiner, side)
            readable.append((side, spec))
        except BackupError as error:
            findings.append(wrong(subject_of(side), "settings", error))
    return readable, findings


def _others_on(
    silent: set[tuple[str, ...]],
    first: dict[tuple[str, ...], tuple[Side, ServiceSpec | None]],
    readable: Sequence[tuple[Side, ServiceSpec | None]],
    examiner: Examiner,
) -> list[Finding]:
    """One finding for all other sides on each server that cannot be used."""
    findings = []
    for key in silent:
        side = first[key][0]
        number = sum(place_key(examiner, other) == key for other, _ in readable) - 1
        if number:
            text = f"{quantity(number, 'other side there was', 'other sides there were')} not looked at"
            findings.append(Finding(Grade.WARNING, subject_of(side), "others", text, "Mend the connection first."))
    return findings


def _checks_of(
    examiner: Examiner,
    specs: Sequence[ServiceSpec],
    sets: Sequence[ServiceSet],
    readable: Sequence[tuple[Side, ServiceSpec | None]],
    silent: set[tuple[str, ...]],
) -> list[Check]:
    answering = {(side.service, side.role) for side, _ in readable if place_key(examiner, side) not in silent}

    def roles_of(name: str) -> list[SideName]:
        return [role for role in _ROLES if (name, role) in answering]

    checks = []
    for spec in specs:
        checks += service_checks(examiner, spec, roles := roles_of(spec.name))
        if len(roles) == len(_ROLES):
            checks.append(places_check(spec, specs, examiner.limits))
    for service_set in sets:
        checks += set_checks(examiner, service_set, roles := roles_of(service_set.name))
        if len(roles) == len(_ROLES):
            checks.append(places_check_of_set(service_set, examiner.limits))
    return checks
