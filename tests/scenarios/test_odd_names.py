"""Tables whose names hold what patterns are made of: each can be named alone, wherever a service is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backup.entry import http
from backup.jobs.job import State
from tests.scenarios.inside import command, done
from tests.scenarios.shops import Shop, work_on_set

NAMES = ["2*3", "2x3", "why?", "whyx", "a[b", "a]b", "[c]", "*"]
BRACKETED = ["[2*3]", "[why?]", "[a[b]", "[a]]b]", "[[c]]]", "[*]"]


def fill(shop: Shop) -> None:
    shop.run(";".join(f'CREATE TABLE "{name}" ("Id" INTEGER PRIMARY KEY, "Fax" INTEGER)' for name in NAMES))
    shop.run(";".join(f'INSERT INTO "{name}" VALUES (1, 2)' for name in NAMES))


def test_a_table_is_named_alone_in_the_file(sqlite_shop: Shop) -> None:
    fill(sqlite_shop)
    assert sqlite_shop.sync().keys() == {*BRACKETED, "2x3", "whyx"}
    for name in BRACKETED:
        registry = sqlite_shop.registry(tables=json.dumps([name]))
        assert registry.directory.names() == [f"shop/{name}"]
        others = {*BRACKETED, "2x3", "whyx"} - {name}
        rest = sqlite_shop.registry(f"exclude = {json.dumps([name])}").directory.names()
        assert {service.removeprefix("shop/") for service in rest} == others
        section = f"[set.shop.table.{json.dumps(name)}]\ncolumns = {{ exclude = ['Fax'] }}"
        specs = sqlite_shop.registry(section).directory.sets["shop"].members.specs
        assert [table for table, spec in specs.items() if spec.rules.exclude] == [name]


def test_a_table_is_named_alone_by_every_way_in(sqlite_shop: Shop, tmp_path: Path) -> None:
    fill(sqlite_shop)
    settings = {"BACKUP_TOML": sqlite_shop.text()}
    for name in BRACKETED[:3]:
        service = f"shop/{name}"
        for order in ("sync", "plan", "history"):
            results = done(command(tmp_path, settings, order, service, "--json"))["Results"]
            assert [result.get("Service") or result["ServiceName"] for result in results] == [service]
        registry = sqlite_shop.registry()
        assert http.post_sync_of(registry, service, {}, b"").body["ServiceName"] == service
        assert http.post_verify(registry, service, {}, b"").body["Verified"]
        [synced] = http.post_sync(registry, {}, json.dumps({"service": service}).encode()).body["Results"]
        assert synced["ServiceName"] == service
    job, job_queue, _ = work_on_set(sqlite_shop, tmp_path, service="shop/[2*3]")
    run = job_queue.runs.get(job.sync_id or "")
    assert run is not None
    assert (job.state, run["service"]) == (State.SUCCEEDED, "shop/[2*3]")
    assert sqlite_shop.registry().directory.chosen("shop/2*3") == ["shop/2x3", "shop/[2*3]"]


@pytest.mark.parametrize("name", ["a\tb", "a\n", " [x\t]", "x" * 300])
def test_the_error_of_a_name_that_nobody_can_type_has_the_pattern_that_leaves_it_out(
    sqlite_shop: Shop,
    name: str,
) -> None:
    sqlite_shop.run(f'CREATE TABLE "{name}" ("Id" INTEGER PRIMARY KEY); CREATE TABLE good ("Id" INTEGER PRIMARY KEY)')
    [error] = sqlite_shop.registry().directory.sets["shop"].members.errors
    pattern = error.hint.rpartition("backup.toml: ")[2].removesuffix(".").strip("'\"")
    members = sqlite_shop.registry(f"exclude = {json.dumps([pattern])}").directory.sets["shop"].members
    assert (members.errors, [*members.specs]) == ([], ["good"])
