"""Histories of the state machine: thousands that chance makes, and some that once diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from backup.core.model import Action, Image
from backup.core.run_values import Run, Trigger
from backup.recycle_bin import kept_batches
from backup.recycle_bin.bin import RecycleBin
from backup.services.service import NO_OPTIONS, Options
from tests.reliability.bench import START, Kill, unsafe_but_fast
from tests.reliability.effort import SEED, rounds
from tests.reliability.machine import Delete, LettersMachine, Machine, PairsMachine, Schema, Write

pytestmark = pytest.mark.timeout(rounds(600, 3600))

STEPS = 25
HISTORIES: dict[type[Machine], int] = {
    Machine: rounds(6, 500),
    PairsMachine: rounds(3, 500),
    LettersMachine: rounds(3, 500),
}
"""Of each shard."""
SHARDS: dict[type[Machine], int] = {Machine: rounds(1, 12), PairsMachine: rounds(1, 4), LettersMachine: rounds(1, 4)}
SET_BACK = timedelta(days=-3)


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with unsafe_but_fast():
        yield


@pytest.mark.parametrize(("machine", "shard"), [(kind, i) for kind, number in SHARDS.items() for i in range(number)])
def test_no_history_lets_the_product_and_the_plain_model_diverge(machine: type[Machine], shard: int) -> None:
    chosen = settings(
        max_examples=HISTORIES[machine],
        stateful_step_count=STEPS,
        derandomize=False,  # SEED draws them
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=rounds([Phase.generate], list(Phase)),  # a failing history is made short by the long run alone
    )
    # Each shard draws its own, whichever others run: so they may be shared out among processes and repeated alone.
    run_state_machine_as_test(seed(f"{SEED} {shard}")(machine), settings=chosen)


def died_and_the_clock_was_set_back(machine: Machine) -> None:
    machine.sync([Write(range(10), "a", False)], Kill(1, "after", "write records"), NO_OPTIONS)
    machine.sync([SET_BACK, Write([0], "ä ", False)], None, NO_OPTIONS)
    machine.show(0, None)
    machine.undo([], 0, False, False, None)


def undone_to_its_beginning_while_the_clock_is_behind(machine: Machine) -> None:
    machine.sync([SET_BACK, Write([0], "a", False)], None, NO_OPTIONS)
    machine.undo([], 0, True, False, None)


def restored_to_before_a_column_was_filled(machine: Machine) -> None:
    machine.sync([Schema.ADD_WITH_DEFAULT], None, NO_OPTIONS)
    machine.restore([Delete([0])], 1, [], False, False, NO_OPTIONS, None)
    machine.sync([], None, NO_OPTIONS)


def undone_what_filled_a_column(machine: Machine) -> None:
    machine.sync([Schema.ADD_WITH_DEFAULT], None, NO_OPTIONS)
    machine.undo([], 0, False, False, None)
    machine.sync([], None, NO_OPTIONS)


def died_while_it_filled_a_column(machine: Machine) -> None:
    machine.sync([Schema.ADD_WITH_DEFAULT], Kill(2, "after", "relay records"), NO_OPTIONS)
    machine.sync([], None, NO_OPTIONS)


def undone_twice(machine: Machine) -> None:
    machine.undo([], 0, False, False, Kill(1, "after", "delete records"))
    machine.undo([], 1, False, False, None)


def restored_after_a_restore_that_inserted(machine: Machine) -> None:
    machine.sync([Write([0], "a", False)], None, NO_OPTIONS)
    machine.restore([Delete([1])], None, [], False, False, NO_OPTIONS, None)
    machine.restore([], 2, [], True, False, NO_OPTIONS, None)


def restored_to_before_an_undo_emptied_a_column(machine: Machine) -> None:
    machine.sync([Schema.ADD_WITH_DEFAULT], None, NO_OPTIONS)
    machine.undo([], 0, False, False, None)
    machine.restore(
        edits=[Write([2], "", False)],
        which=1,
        places=[2],
        overwrite_newer=True,
        delete_extra=False,
        options=NO_OPTIONS,
        kill=None,
    )


def restored_to_between_two_fills_that_an_undo_took_back(machine: Machine) -> None:
    machine.sync([Schema.ADD_WITH_DEFAULT], None, NO_OPTIONS)
    machine.sync([Schema.ADD_WITH_DEFAULT], None, NO_OPTIONS)
    machine.undo([], 1, True, False, None)
    machine.restore([Write([2], "", False)], 2, [2], True, False, NO_OPTIONS, None)


def a_dry_run_was_resumed(machine: Machine) -> None:
    machine.sync([Write([0], "a", False), Delete([1])], None, Options(dry_run=True), 0)
    machine.resume([], None, None)


@pytest.mark.parametrize(
    "history",
    [
        *(died_and_the_clock_was_set_back, undone_to_its_beginning_while_the_clock_is_behind),
        *(restored_to_before_a_column_was_filled, undone_what_filled_a_column, died_while_it_filled_a_column),
        *(undone_twice, restored_after_a_restore_that_inserted, a_dry_run_was_resumed),
        *(restored_to_before_an_undo_emptied_a_column, restored_to_between_two_fills_that_an_undo_took_back),
    ],
)
def test_what_once_diverged_does_no_more(history: Callable[[Machine], None]) -> None:
    machine = Machine()
    try:
        machine.fill(copied=True)
        history(machine)
    finally:
        machine.teardown()


def test_an_undo_deletes_all_that_was_inserted_before_it_writes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a run leaves it that deleted keys, was killed, and inserted them anew under another spelling.
    monkeypatch.setattr(kept_batches, "_AT_ONCE", 1)
    machine = LettersMachine()
    try:
        machine.fill(copied=True)
        with machine.bench.service.stores() as (_, backup):
            old = [{**row, "Id": row["Id"].swapcase()} for row in machine.backup.values() if row["Id"].isascii()]
            run = Run("customer", Trigger.CLI, forced=False, started_at=START, sync_id=machine.runs[-1].sync_id)
            keep = RecycleBin(backup, "customer").recorder(run, machine.bench.clock)
            keep([Image((row["Id"],), Action.DELETED, row, (row["Version"],)) for row in old], None)
        assert machine.bench.service.undo(run.sync_id).error is None
        assert machine.bench.rows("backup") == {machine.bench.key_of(row): row for row in old}
    finally:
        machine.teardown()


def spelled_anew_between_two_calls(machine: Machine) -> None:
    machine.fill(copied=False)
    machine.sync([], Kill(1, "after", "relay records"), NO_OPTIONS)
    machine.resume([Write([0], None, False)], None, None)


def spelled_anew_and_changed_again_in_a_third_call(machine: Machine) -> None:
    machine.fill(copied=False)
    machine.sync([], None, NO_OPTIONS)
    unlike = [Write([0, 1, 2, 3], None, False), Delete([8]), Write([9], None, False), Write([0, 1, 2, 7], None, False)]
    machine.resume(unlike, None, None)
    machine.sync([], None, NO_OPTIONS, 0)
    machine.resume([], Kill(1, "after", "delete records"), None)
    columns = [Schema.ADD_WITH_DEFAULT, Schema.ADD_WITH_DEFAULT]
    machine.sync([Write([5], "a", False), *columns, Write([6, 1, 0, 5], None, False)], None, NO_OPTIONS, 0)
    machine.sync([Schema.ADD_WITH_DEFAULT, Schema.WIDEN], Kill(1, "after", "alter the columns"), NO_OPTIONS)
    machine.sync([], None, NO_OPTIONS)


def deleted_and_inserted_under_another_spelling(machine: Machine) -> None:
    machine.fill(copied=True)
    machine.sync([Delete([6, 7])], Kill(1, "after", "delete records"), Options(allow_mass_delete=True))
    assert ("e",) not in machine.backup
    machine.resume([Write([6], "", True)], None, None)


@pytest.mark.parametrize(
    "history",
    [
        spelled_anew_between_two_calls,
        spelled_anew_and_changed_again_in_a_third_call,
        deleted_and_inserted_under_another_spelling,
    ],
)
def test_a_record_has_one_image_a_run_however_its_key_is_spelled(history: Callable[[Machine], None]) -> None:
    machine = LettersMachine()
    try:
        history(machine)
    finally:
        machine.teardown()
