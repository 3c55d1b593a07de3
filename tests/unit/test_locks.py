"""One sync of a service at a time: the file lock, and the lease in a storage account."""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobServiceClient

from backup.config.settings import load_settings
from backup.core.errors import ConfigError, Locked, LockLost, StoreUnavailable, TransientStoreError
from backup.core.retry import Retry
from backup.core.safe_names import safe_name
from backup.runs import blob_lease, lock, lock_file
from backup.runs.lock import Lock, open_lock
from backup.runs.lock_file import LockFile

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SECONDS = 30
AT_ONCE = Retry(max_attempts=1, base_seconds=0)


@pytest.fixture
def service() -> str:
    """A service's name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


# The names of files and blobs

ODD_NAMES = [
    *(
        "chinook/dbo.Customer",
        "..",
        "a\\b",
        "a#b?c",
        "a b",
        "con:",
        "-x",
        "Ü",
        "顧客" * 100,
        "x" * 200,
        "x" * 64,
        "%2F",
    ),
    "🙂" * 100,
]


@pytest.mark.parametrize("name", ["customer", "order", "invoiceline", "a-b_c", "x" * 63])
def test_a_plain_name_of_a_service_is_that_of_its_lock(name: str) -> None:
    assert safe_name(name) == name


def test_any_other_name_of_a_service_is_a_hash_in_that_of_its_lock() -> None:
    names = [safe_name(name) for name in ODD_NAMES]
    assert [name for name in names if not re.fullmatch("[0-9a-f]{64}", name)] == []
    assert len(set(names)) == len(ODD_NAMES)
    assert safe_name("Chinook/DBO.customer") == safe_name("chinook/dbo.Customer")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_lock_takes_any_name_of_a_service(file_lock: Lock, name: str) -> None:
    with file_lock(name, "backup"), pytest.raises(Locked, match="already running"), file_lock(name, "backup"):
        pass


def test_the_file_of_a_plain_name_is_where_it_was(file_lock: Lock, lock_files: Path) -> None:
    with file_lock("customer", "where an earlier release found it"):
        assert [*lock_files.rglob("customer-2f42a29c8f470510.lock")] != []


@pytest.mark.parametrize("name", ["chinook/dbo.Customer", "a\\b#c?d", "顧客" * 100])
def test_a_lease_takes_any_name_of_a_service(by_lease: Lock, name: str) -> None:
    with by_lease(name, "backup"), pytest.raises(Locked, match="already running"), by_lease(name, "backup"):
        pass


# The file lock


@pytest.fixture
def file_lock() -> Lock:
    return open_lock(load_settings({}), AT_ONCE)


def test_a_second_taker_of_a_file_lock_is_refused_at_once(file_lock: Lock, service: str) -> None:
    for _ in range(2):
        with file_lock(service, "backup"), pytest.raises(Locked, match=service), file_lock(service, "backup"):
            pass


def test_a_file_lock_that_was_given_back_can_be_taken_again(file_lock: Lock, service: str) -> None:
    for _ in range(2):
        with file_lock(service, "backup") as held:
            held()


def test_a_file_lock_is_given_back_when_the_run_fails(file_lock: Lock, service: str) -> None:
    with pytest.raises(ZeroDivisionError), file_lock(service, "backup"):
        raise ZeroDivisionError
    with file_lock(service, "backup") as held:
        held()


def test_another_service_is_not_locked(file_lock: Lock, service: str) -> None:
    with file_lock(service, "backup"), file_lock(f"{service}-other", "backup") as held:
        held()


def test_the_same_service_of_another_backup_is_not_locked(file_lock: Lock, service: str) -> None:
    with file_lock(service, "backup"), file_lock(service, "another backup") as held:
        held()


def test_a_killed_holder_leaves_no_file_lock_behind(file_lock: Lock, service: str) -> None:
    script = (
        "import sys; from backup.runs.lock import open_lock; from backup.core.retry import Retry;"
        "from backup.config.settings import load_settings\n"
        "with open_lock(load_settings({}), Retry())(sys.argv[1], 'backup'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, service], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked), file_lock(service, "backup"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(DEADLINE_SECONDS)
    with file_lock(service, "backup") as held:
        held()


def test_a_file_lock_that_was_given_back_is_free_though_a_forked_process_lives(file_lock: Lock, service: str) -> None:
    ended, end = os.pipe()
    with file_lock(service, "backup"):
        if not (child := os.fork()):
            try:
                os.read(ended, 1)
            finally:
                os._exit(0)
        with pytest.raises(Locked), file_lock(service, "backup"):
            pass
    with file_lock(service, "backup"):  # though the child lives
        os.write(end, b"x")
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(Locked), file_lock(service, "backup"):
            pass


def test_a_forked_process_that_leaves_the_block_does_not_free_its_parents_lock(file_lock: Lock, service: str) -> None:
    holder = file_lock(service, "backup")
    with holder:
        if not (child := os.fork()):
            try:
                holder.__exit__(None, None, None)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(Locked), file_lock(service, "backup"):
            pass


def test_a_forked_process_can_take_what_its_parent_gave_back(file_lock: Lock, service: str) -> None:
    with file_lock(service, "backup"):
        pass
    if not (child := os.fork()):
        code = 1
        try:
            with file_lock(service, "backup"):
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_holder_that_died_leaves_its_lock_free_though_a_process_that_it_forked_lives(
    file_lock: Lock, service: str
) -> None:
    (forked, has_forked), (ended, end) = os.pipe(), os.pipe()
    if not (holder := os.fork()):
        held_by_it = file_lock(service, "backup")
        held_by_it.__enter__()
        if os.fork():
            os._exit(0)
        os.close(end)
        os.write(has_forked, b"x")
        os.read(ended, 1)
        os._exit(0)
    assert os.waitpid(holder, 0)[1] == 0
    assert os.read(forked, 1) == b"x"
    with file_lock(service, "backup") as held:
        held()
    os.close(end)


def test_a_file_that_is_deleted_before_it_is_locked_is_made_again(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one run would hold the deleted file, and another one the next file of its name."""
    path, lock_it = tmp_path / service, lock_file._lock

    def delete_and_lock(descriptor: int) -> None:
        monkeypatch.setattr(lock_file, "_lock", lock_it)
        path.unlink()
        lock_it(descriptor)

    monkeypatch.setattr(lock_file, "_lock", delete_and_lock)
    held = LockFile(str(path))
    with pytest.raises(BlockingIOError):
        LockFile(str(path))
    held.release()


def test_a_folder_for_lock_files_that_cannot_be_written_is_an_error(
    file_lock: Lock, service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lock, "gettempdir", lambda: str(tmp_path / "file" / "beneath"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="lock file"), file_lock(service, "backup"):
        pass


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this user's lock files shall lie; not made yet."""
    monkeypatch.setattr(lock, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"backup-locks-{os.getuid()}"


def test_lock_files_lie_in_a_folder_of_the_users_own(file_lock: Lock, service: str, own_folder: Path) -> None:
    with file_lock(service, "backup"):
        assert own_folder.lstat().st_mode == stat.S_IFDIR | 0o700
        assert [path.name.rpartition("-")[0] for path in own_folder.iterdir()] == [service]


def test_a_folder_for_lock_files_that_is_as_it_should_be_is_left_alone(
    file_lock: Lock, service: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder.mkdir(mode=0o700)
    monkeypatch.setattr(Path, "chmod", lambda *_: pytest.fail("its rights were set again"))
    with file_lock(service, "backup"):
        assert own_folder.lstat().st_mode == stat.S_IFDIR | 0o700


def test_a_folder_for_lock_files_that_others_may_enter_is_closed_to_them(
    file_lock: Lock, service: str, own_folder: Path
) -> None:
    own_folder.mkdir()
    own_folder.chmod(0o777)
    with file_lock(service, "backup"):
        assert own_folder.lstat().st_mode == stat.S_IFDIR | 0o700


@pytest.mark.parametrize("kind", ["another user's", "a link to a folder", "a link to nothing", "a file"])
def test_a_folder_for_lock_files_that_is_not_the_users_own_is_refused(
    file_lock: Lock, service: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    elsewhere = own_folder.parent / "elsewhere"
    if kind == "another user's":
        own_folder.mkdir()
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        own_folder.rename(own_folder.parent / f"backup-locks-{other}")
    elif kind == "a file":
        own_folder.write_text("")
    else:
        if kind == "a link to a folder":
            elsewhere.mkdir()
        own_folder.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="lock file") as raised, file_lock(service, "backup"):
        pass
    assert "TMPDIR" in raised.value.hint
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


def test_tests_leave_no_lock_file_where_the_app_would_have_it(lock_files: Path, file_lock: Lock, service: str) -> None:
    with file_lock(service, "backup"):
        assert next(lock_files.rglob(f"{service}-*"))


# The lease


@pytest.fixture
def by_lease(azurite: str) -> Lock:
    return open_lock(load_settings({"AzureWebJobsStorage": azurite}), AT_ONCE)


@pytest.fixture
def blob(azurite: str, service: str) -> Iterator[BlobClient]:
    """The blob that the service's lease is on."""
    with BlobServiceClient.from_connection_string(azurite) as account:
        yield account.get_blob_client(blob_lease.CONTAINER, f"{service}.lock")


def lease_state(blob: BlobClient) -> str:
    return str(blob.get_blob_properties().lease.state)


def test_a_second_taker_of_a_lease_is_refused(by_lease: Lock, service: str) -> None:
    with by_lease(service, "backup"), pytest.raises(Locked, match=service), by_lease(service, "backup"):
        pass


def test_a_lease_is_held_within_the_block_and_given_back_at_its_end(
    by_lease: Lock, service: str, blob: BlobClient
) -> None:
    with by_lease(service, "backup") as held:
        held()
        assert lease_state(blob) == "leased"
    assert lease_state(blob) == "available"


def test_a_lease_is_given_back_when_the_run_fails(by_lease: Lock, service: str, blob: BlobClient) -> None:
    with pytest.raises(ZeroDivisionError), by_lease(service, "backup"):
        raise ZeroDivisionError
    assert lease_state(blob) == "available"


def test_a_lease_outlives_no_dead_holder(by_lease: Lock, service: str, blob: BlobClient) -> None:
    with by_lease(service, "backup"):
        assert blob.get_blob_properties().lease.duration == "fixed"


def test_services_are_leased_apart(by_lease: Lock, service: str) -> None:
    with by_lease(service, "backup"), by_lease(f"{service}-other", "backup") as held:
        held()


def test_many_takers_at_once_leave_one_holder(by_lease: Lock, service: str) -> None:
    """Also of a container and a blob that do not exist yet."""
    start, done, results = threading.Barrier(4), threading.Barrier(4), []

    def take() -> None:
        start.wait(DEADLINE_SECONDS)
        try:
            with by_lease(service, "backup"):
                results.append("held")
                done.wait(DEADLINE_SECONDS)
        except Locked:
            results.append("locked")
            done.wait(DEADLINE_SECONDS)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert sorted(results) == ["held", "locked", "locked", "locked"]


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Renews all the time, and gives a function that waits until another renewal has been answered."""
    answered = threading.Semaphore(0)
    renew = BlobLeaseClient.renew

    def counted(self: BlobLeaseClient, **options: Any) -> None:
        try:
            renew(self, **options)
        finally:
            answered.release()

    monkeypatch.setattr(blob_lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(BlobLeaseClient, "renew", counted)

    def next_one() -> None:
        while answered.acquire(blocking=False):
            pass
        assert answered.acquire(timeout=DEADLINE_SECONDS)

    return next_one


def test_a_lease_is_renewed_while_the_run_lasts(by_lease: Lock, service: str, renewals: Any, blob: BlobClient) -> None:
    with by_lease(service, "backup") as held:
        renewals()
        held()
        assert lease_state(blob) == "leased"


def ended_renewal() -> None:
    """Returns once no renewal runs any more."""
    for thread in threading.enumerate():
        if isinstance(thread, blob_lease._Renewal):
            thread.join(DEADLINE_SECONDS)


@pytest.mark.parametrize("loss", ["broken", "taken over", "deleted"])
def test_a_lost_lease_is_noticed_at_the_next_check(
    by_lease: Lock, service: str, blob: BlobClient, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_lease, "RENEW_SECONDS", 0.01)
    with by_lease(service, "backup") as held:
        BlobLeaseClient(blob).break_lease(0)
        if loss == "taken over":
            blob.acquire_lease(60)
        if loss == "deleted":
            blob.delete_blob()
        ended_renewal()
        with pytest.raises(LockLost, match=service):
            held()


def test_a_lease_that_could_not_be_renewed_in_time_counts_as_lost(
    by_lease: Lock, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with by_lease(service, "backup") as held:
        held()
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + blob_lease.LEASE_SECONDS)
        with pytest.raises(LockLost):
            held()


def test_a_lease_counts_as_lost_before_another_can_have_it() -> None:
    assert blob_lease.RENEW_SECONDS > 0
    assert blob_lease.LEASE_SECONDS >= 3 * blob_lease.RENEW_SECONDS  # so that one renewal may fail
    assert 15 <= blob_lease.LEASE_SECONDS <= 60  # what the service allows


def test_a_renewal_that_gets_no_answer_is_tried_again(
    by_lease: Lock, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def renew(self: BlobLeaseClient, **_: Any) -> None:
        tried.release()
        raise ServiceRequestError("no answer")

    monkeypatch.setattr(blob_lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(BlobLeaseClient, "renew", renew)
    with by_lease(service, "backup") as held:
        for _ in range(3):
            assert tried.acquire(timeout=DEADLINE_SECONDS)
        held()


def test_a_run_does_not_fail_because_its_lease_could_not_be_given_back(
    by_lease: Lock, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def release(self: BlobLeaseClient, **_: Any) -> None:
        raise ServiceRequestError("no answer")

    monkeypatch.setattr(BlobLeaseClient, "release", release)
    with by_lease(service, "backup") as held:
        held()


def test_an_answer_that_was_not_heard_does_not_lock_out_the_next_try(
    azurite: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = BlobClient.acquire_lease
    calls = 0

    def lost_once(self: BlobClient, **options: Any) -> BlobLeaseClient:
        nonlocal calls
        calls += 1
        granted = acquire(self, **options)
        if calls == 1:
            raise ServiceRequestError("the answer was lost")
        return granted

    monkeypatch.setattr(BlobClient, "acquire_lease", lost_once)
    lock = open_lock(load_settings({"AzureWebJobsStorage": azurite}), Retry(base_seconds=0))
    with lock(service, "backup") as held:
        held()
    assert calls == 2


# Storage that cannot be used


def storage(address: str) -> str:
    return f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=aGlkZGVuLWtleQ==;BlobEndpoint={address};"


def test_storage_that_is_down_is_named_by_its_setting_after_the_retries(service: str) -> None:
    settings = load_settings({"AzureWebJobsStorage": storage("http://127.0.0.1:1/a")})
    with (
        pytest.raises(TransientStoreError, match="AzureWebJobsStorage") as raised,
        open_lock(settings, Retry(max_attempts=2, base_seconds=0))(service, "backup"),
    ):
        pass
    assert "aGlkZGVu" not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("AzureWebJobsStorage__blobServiceUri", "http://shop.blob.core.windows.net"),
        ("AzureWebJobsStorage", "BlobEndpoint=http://127.0.0.1:10000/a"),
        ("AzureWebJobsStorage", "BlobEndpoint=http://shop.example/;SharedAccessSignature=sig=x"),
    ],
)
def test_no_token_and_no_signature_goes_to_storage_in_clear(setting: str, value: str, service: str) -> None:
    lock = open_lock(load_settings({setting: value}), AT_ONCE)
    with pytest.raises(ConfigError, match=f"Setting {setting} "), lock(service, "backup"):
        pass


class Refusing(BaseHTTPRequestHandler):
    """Refuses whatever it is asked, as Azurite does with calls of a newer SDK."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("do_"):
            raise AttributeError(name)
        return lambda: self.send_error(400, "The API version is not supported by Azurite")

    def log_message(self, *_: Any) -> None:
        pass


def test_the_reason_that_storage_gives_is_told(service: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = storage(f"http://127.0.0.1:{server.server_port}/a")
        lock = open_lock(load_settings({"AzureWebJobsStorage": text}), AT_ONCE)
        with pytest.raises(StoreUnavailable, match="HTTP 400: The API version is not"), lock(service, "backup"):
            pass
        server.shutdown()


@pytest.mark.parametrize("text", ["garbage", "AccountName", "a=b", "AccountKey=x", "AccountName=a;AccountKey=%"])
def test_storage_whose_connection_string_cannot_be_read_is_named_by_its_setting(text: str, service: str) -> None:
    lock = open_lock(load_settings({"AzureWebJobsStorage": text}), AT_ONCE)
    with pytest.raises((ConfigError, StoreUnavailable), match="AzureWebJobsStorage"), lock(service, "backup"):
        pass


def test_a_wrong_key_is_not_tried_again_and_not_shown(
    azurite: str, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = "d3Jvbmcta2V5LW9mLWEtdGVzdA=="
    parts = dict(part.split("=", 1) for part in azurite.strip(";").split(";"))
    wrong = ";".join(f"{name}={key if name == 'AccountKey' else value}" for name, value in parts.items())
    lock = open_lock(load_settings({"AzureWebJobsStorage": wrong}), Retry(base_seconds=0))
    with pytest.raises(StoreUnavailable, match="AzureWebJobsStorage") as raised, lock(service, "backup"):
        pass
    assert not isinstance(raised.value, TransientStoreError)
    assert key not in str(raised.value) + raised.value.hint + caplog.text
