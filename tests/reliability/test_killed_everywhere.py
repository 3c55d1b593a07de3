"""A process really killed at every step of a run, and the next run: nothing is lost, nothing is counted twice."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.servers import lent_database
from tests.reliability import scenes
from tests.reliability.effort import rounds
from tests.reliability.mortal import Mortal, Point, carried_out, one_of_each, points_of
from tests.reliability.scenes import BackupState, Scene, check_bin, counts_of, difference, is_whole, look
from tests.scenarios.places import Contents, Sql

pytestmark = pytest.mark.timeout(rounds(300, 3600))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with Mortal(tmp_path_factory.mktemp("mortal")) as process:
        yield process


@pytest.fixture
def sqlite(tmp_path: Path) -> Scene:
    scene = scenes.on_sqlite(tmp_path)
    scene.begin()
    return scene


@pytest.fixture
def postgresql(postgres: str) -> Iterator[Scene]:
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        scene = scenes.on_postgres(source, backup)
        scene.begin()
        yield scene


@pytest.fixture
def cosmos(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Scene:
    scene = scenes.on_cosmos(tmp_path, cosmos_server, cosmos_server_backup)
    scene.begin()
    return scene


FIRST, MIDDLE, LAST = 0.0, 0.5, 1.0
QUICK: dict[str, dict[str, float]] = {
    "sqlite": {
        "lock taken": FIRST,
        "after history.save": FIRST,
        "after backup.stamp_rows": MIDDLE,
        "after source.read": MIDDLE,
        "UPDATE Customers sent": MIDDLE,
        "INSERT Customers sent": MIDDLE,
        "INSERT RecycleBin sent": FIRST,
        "before commit of Customers, RecycleBin": MIDDLE,
        "after commit of Customers, RecycleBin": MIDDLE,
        "after backup.write": LAST,
        "before backup.delete": FIRST,
        "before bin": LAST,
        "DELETE Customers sent": FIRST,
        "after backup.delete": FIRST,
        "before history.save": LAST,
        "before lock release": FIRST,
    },
    "postgresql": {
        "UPDATE Customers sent": MIDDLE,
        "before commit of Customers, RecycleBin": FIRST,
        "after commit of Customers, RecycleBin": MIDDLE,
        "after backup.delete": FIRST,
        "before commit of SyncHistory": LAST,
        "before lock release": FIRST,
    },
    "cosmos": {
        "after create_item recycle-bin": MIDDLE,
        "after upsert_item orders": MIDDLE,
        "after delete_item orders": FIRST,
        "before history.save": LAST,
    },
}
"""The steps at which the quick run kills, and at which time of those that they are reached; the long run takes all."""


def chosen(trace: Sequence[str], kind: str, then: str) -> list[Point]:
    def quick(step: str, when: float) -> Point:
        return Point(step, round(1 + when * (trace.count(step) - 1)))

    few = [quick(*item) for item in QUICK[kind].items()]
    return rounds(few if then == "sync" else few[::3], points_of(trace))


@pytest.mark.parametrize(
    ("kind", "then"),
    [("sqlite", "sync"), ("sqlite", "resume"), ("postgresql", "sync"), ("cosmos", "sync")],
)
def test_a_killed_run_is_resumed_and_does_exactly_what_was_left(
    kind: str, then: str, request: pytest.FixtureRequest, mortal: Mortal, subtests: pytest.Subtests
) -> None:
    scene = request.getfixturevalue(kind)
    scene.change()
    trace = mortal.run(scene.order("sync"))["trace"]
    scene.settle()
    for point in chosen(trace, kind, then):
        with subtests.test(killed=str(point)):
            check_killed_sync(scene, mortal, point, phase_of(trace, point), then, transactional=kind != "cosmos")


def check_killed_sync(
    scene: Scene, mortal: Mortal, point: Point, phase: str, then: str, *, transactional: bool
) -> None:
    """Kills a sync at the point, looks at what it left, and lets the next call end it: a sync, or a resumption."""
    backup = scene.service.backup
    scene.rewind()
    before = look(backup)
    scene.change()
    after = scene.service.source.contents()
    whole = difference(after, before.contents)

    mortal.kill(scene.order("sync"), point)

    half = look(backup).since(before)
    left = difference(after, half.contents)
    check_bin(half.bin, before.contents, after)
    check_nothing_lost(half, before.contents)
    assert left[:2] == (0, 0) or before.contents.keys() <= half.contents.keys(), "deleted before all was written"
    stood = [run["Status"] for run in half.runs]
    assert stood in STANDS[phase], f"{phase}: {stood}"

    ended = carried_out(scene.order(then))

    assert (ended["status"], ended["verified"], ended["error"]) == ("Completed", True, None)
    end = look(backup).since(before)
    assert end.contents == after
    if stood == ["InProgress"]:
        assert tuple(ended["counts"]) == whole, "the two calls have not counted each change once"
    else:
        assert tuple(ended["counts"]) == left, "the second run's counts are not what was left"
    check_bin(end.bin, before.contents, after)
    check_nothing_lost(end, before.contents)
    if transactional:
        keys = [image.key for image in end.bin]
        assert len(keys) == len(set(keys)) == sum(whole[:3]), "not exactly one image of each change"
    check_history(end.runs, ended, stood, whole)
    scene.settle()


def check_history(
    entries: list[dict[str, Any]], last: dict[str, Any], stood: list[str], whole: tuple[int, ...]
) -> None:
    """One entry a run: the last call went on as the killed run if that had begun, and had not recorded its end."""
    assert len(entries) == len({entry["SyncId"] for entry in entries}) == (2 if stood == ["Completed"] else 1)
    assert entries[-1]["SyncId"] == last["sync_id"]
    assert counts_of(entries[-1]) == tuple(last["counts"])
    for entry in entries:
        assert (entry["Status"], bool(entry["Success"]), bool(entry["Verified"])) == ("Completed", True, True)
        assert (entry["ErrorMessage"], entry["Percent"], entry["Checkpoint"]) == (None, None, None)
        assert entry["CompletedAt"] is not None
    total = [sum(numbers) for numbers in zip(*map(counts_of, entries), strict=True)]
    assert total[:3] == list(whole[:3]), "a change is counted twice, or not at all"


def check_nothing_lost(now: BackupState, before: Contents) -> None:
    """Each value that was in the backup still is, or is in the bin; `check_bin` has seen that it is whole there."""
    binned = {image.key for image in now.bin if image.record is not None}
    lost = [key for key, value in before.items() if now.contents.get(key) != value and key not in binned]
    assert not lost, f"neither in the backup nor in the bin: {lost}"


# How a killed run's entry may stand, by where it died.
STANDS: dict[str, list[list[str]]] = {
    "unborn": [[]],
    "being entered": [[], ["InProgress"]],
    "working": [["InProgress"]],
    "being ended": [["InProgress"], ["Completed"]],
    "ended": [["Completed"]],
}


def phase_of(trace: Sequence[str], point: Point) -> str:
    """Where in its life a run is at that point: before, inside, between or after the two savings of its entry."""
    points = points_of(trace)
    begun = [i for i, reached in enumerate(points) if reached.step == "before history.save"]
    saved = [i for i, reached in enumerate(points) if reached.step == "after history.save"]
    at = points.index(point)
    if at >= saved[-1]:
        return "ended"
    if at > begun[-1]:
        return "being ended"
    if at >= saved[0]:
        return "working"
    return "being entered" if at > begun[0] else "unborn"


def test_an_undo_that_was_killed_is_done_by_the_next_one(
    sqlite: Scene, mortal: Mortal, subtests: pytest.Subtests
) -> None:
    before = sqlite.service.backup.contents()
    sqlite.change()
    undone = mortal.run(sqlite.order("sync"))["sync_id"]
    order = sqlite.order("undo", sync_id=undone, through=True)

    def check() -> None:
        assert sqlite.service.backup.contents() == before

    check_killed_and_repeated(sqlite, mortal, order, check, subtests, most=5)


STEPS_OF_RANGES = (
    "INSERT RecycleBin sent",
    "DELETE Customers sent",
    "before commit of Customers, RecycleBin",
    "after commit of Customers, RecycleBin",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def three_ranges(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Ten records with keys in three ranges, and batches of three."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            scene = scenes.on_sqlite(tmp_path)
        else:
            postgres = request.getfixturevalue("postgres")
            scene = scenes.on_postgres(*(stack.enter_context(lent_database(postgres)) for _ in range(2)))
        scene.last, scene.inserted = 12, range(4, 12, 4)
        scene.extra_settings = {"BackupSync__BatchSize": "3", "BackupSync__ChunkSize": "3"}
        scene.begin()
        yield scene


def test_an_undo_by_ranges_of_keys_that_was_killed_is_done_by_the_next_one(
    three_ranges: Scene, mortal: Mortal, subtests: pytest.Subtests
) -> None:
    scene = three_ranges
    copies, [first] = scene.service.backup.contents(), scene.service.backup.history()
    order = scene.order("undo", sync_id=first["SyncId"], through=False)

    def check() -> None:
        backup = look(scene.service.backup)
        assert backup.contents == {}
        images = [entry for entry in backup.bin if entry.action == "Deleted"]
        assert sorted(image.key for image in images) == sorted(copies)
        assert all(is_whole(image.record, copies[image.key]) for image in images)

    trace = check_killed_and_repeated(scene, mortal, order, check, subtests, STEPS_OF_RANGES)
    assert trace.count("DELETE Customers sent") == 4
    assert "after backup.images" not in trace, "not by ranges"


STEPS_OF_FORCE = (
    "INSERT backup_changes sent",
    "COPY backup_changes sent",
    "INSERT RecycleBin sent",
    "UPDATE Customers sent",
    "before commit of Customers, RecycleBin, backup_changes",
    "after commit of Customers, RecycleBin, backup_changes",
)


def test_a_forced_run_that_was_killed_is_done_by_the_next_one(
    three_ranges: Scene, mortal: Mortal, subtests: pytest.Subtests
) -> None:
    scene = three_ranges
    before = look(scene.service.backup)
    scene.change()
    after = scene.service.source.contents()

    def check() -> None:
        end = look(scene.service.backup).since(before)
        assert end.contents == after
        for run, contents in zip(end.runs, (before.contents, after), strict=False):
            check_bin([entry for entry in end.bin if entry.sync_id == run["SyncId"]], contents, after)

    trace = check_killed_and_repeated(scene, mortal, scene.order("sync", force=True), check, subtests, STEPS_OF_FORCE)
    assert "after source.read" not in trace, "not by the servers"


STEPS_OF_IMAGES = (
    "INSERT backup_changes sent",
    "INSERT RecycleBin sent",
    "UPDATE Customers sent",
    "INSERT Customers sent",
    "before commit of Customers, RecycleBin, backup_changes",
    "after commit of Customers, RecycleBin, backup_changes",
)


@pytest.mark.parametrize("three_ranges", ["sqlite"], indirect=True)
def test_an_undo_by_images_that_was_killed_is_done_by_the_next_one(
    three_ranges: Scene, mortal: Mortal, subtests: pytest.Subtests
) -> None:
    scene = three_ranges
    before = scene.service.backup.contents()
    scene.change()
    forced = mortal.run(scene.order("sync", force=True))
    order = scene.order("undo", sync_id=forced["sync_id"], through=False)

    def check() -> None:
        assert scene.service.backup.contents() == before

    trace = check_killed_and_repeated(scene, mortal, order, check, subtests, STEPS_OF_IMAGES)
    assert trace.count("INSERT backup_changes sent") == 2, "not by the server"


AS_OF = ["now", "now, by the servers", "now, into an empty source", "before the change", "before the run"]


@pytest.mark.parametrize("as_of", AS_OF)
def test_a_restore_that_was_killed_is_done_by_the_next_one(
    sqlite: Scene, mortal: Mortal, subtests: pytest.Subtests, as_of: str
) -> None:
    before = sqlite.service.backup.contents()
    [first] = sqlite.service.backup.history()
    sqlite.change()
    if as_of.startswith("now"):
        order = sqlite.order("restore", at=None, **({"fewest": 1} if "servers" in as_of else {}))
        if "empty" in as_of:
            assert isinstance(sqlite.service.source, Sql)
            sqlite.service.source.run("DELETE FROM {table}")
    elif as_of == "before the run":
        changing = mortal.run(sqlite.order("sync"))
        order = sqlite.order("restore", at=None, run=changing["sync_id"], fewest=1)
    else:
        mortal.run(sqlite.order("sync"))
        assert isinstance(sqlite.service.source, Sql)
        sqlite.service.source.run("DELETE FROM {table} WHERE Id > 50")  # which the servers pass on
        order = sqlite.order("restore", at=f"{first['CompletedAt']}+00:00", fewest=1)
    copies = sqlite.service.backup.contents()

    def check() -> None:
        assert sqlite.service.source.contents() == before
        assert sqlite.service.backup.contents() == copies
        for run in sqlite.service.backup.history():
            assert run["Status"] != "Failed" or "inserted more records than its counts" in run["Notes"]

    turn = AS_OF.index(as_of)  # so that each kind of restore dies at other steps
    trace = check_killed_and_repeated(sqlite, mortal, order, check, subtests, most=3, turn=turn)
    assert "fewest" not in order or "INSERT backup_changes sent" in trace, "not by the servers"


def check_killed_and_repeated(
    scene: Scene,
    mortal: Mortal,
    order: dict[str, Any],
    check: Callable[[], None],
    subtests: pytest.Subtests,
    steps: Collection[str] = (),
    *,
    most: int = 7,
    turn: int = 0,
) -> Sequence[str]:
    """Kills a run of that order at points from here on, each time repeats it, and asks for the right result.

    The quick run kills at `most` points, the long run at all. `steps`: the only steps of the quick run; each `turn` has
    others of them. Returns the steps of a run that is not killed.
    """
    scene.save()
    before = look(scene.service.backup)
    trace: Sequence[str] = mortal.run(order)["trace"]
    points = points_of(trace)
    few = [point for point in points if not steps or point.step in steps]
    for point in rounds(one_of_each(few, most, turn), points):
        with subtests.test(killed=str(point)):
            scene.rewind()
            mortal.kill(order, point)
            ended = carried_out(order)
            assert (ended["status"], ended["error"]) == ("Completed", None)
            check()
            end = look(scene.service.backup).since(before)
            owners = [(image.sync_id, image.key) for image in end.bin]
            assert len(owners) == len(set(owners))
            assert [run["Status"] for run in end.runs] in (
                ["Completed"],
                ["Failed", "Completed"],
                ["Completed", "Completed"],
            )
    return trace
