"""Every server that tests rely on answers the SDK or driver that the app uses."""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import sqlalchemy
from azure.core.exceptions import HttpResponseError
from azure.cosmos import PartitionKey
from azure.cosmos._global_endpoint_manager import _GlobalEndpointManager
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from tests.emulators import servers
from tests.emulators.clients import cosmos_client
from tests.emulators.folders import server_folder


def test_azurite_grants_a_blob_lease_to_one_at_a_time(azurite: str) -> None:
    with BlobServiceClient.from_connection_string(azurite) as service:
        container = service.create_container(f"test-{uuid.uuid4()}")
        blob = container.upload_blob("lock", b"")
        lease = blob.acquire_lease(15)
        with pytest.raises(HttpResponseError) as refused:
            BlobLeaseClient(blob).acquire(15)
        assert refused.value.status_code == 409
        lease.release()
        blob.acquire_lease(15)


@pytest.mark.parametrize("server", ["cosmos_server", "cosmos_server_backup"])
def test_cosmos_returns_what_was_created(server: str, request: pytest.FixtureRequest) -> None:
    name = f"test-{uuid.uuid4()}"
    with cosmos_client(request.getfixturevalue(server)) as client:
        database = client.create_database(name)
        container = database.create_container("orders", PartitionKey("/customerId"))
        container.create_item({"id": "1", "customerId": "A", "total": 12.5, "note": "grüße"})
        read = container.read_item("1", partition_key="A")
        client.delete_database(name)
    assert (read["total"], read["note"]) == (12.5, "grüße")


def test_what_a_killed_process_left_of_a_server_is_removed_and_nothing_else() -> None:
    program = (
        "from tests.emulators.folders import server_folder\n"
        "with server_folder('lives') as folder: print(folder, flush=True); input()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) for _ in range(2)]
    try:
        killed, living = (Path(str(process.stdout and process.stdout.readline().strip())) for process in processes)
        processes[0].kill()
        processes[0].wait()
        for folder in (killed, living):
            os.utime(folder, (0, 0))
        with server_folder("next"):
            assert (killed.exists(), living.exists()) == (False, True)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    with server_folder("next") as folder, TemporaryDirectory(prefix="backup-tests-") as young, server_folder("another"):
        assert Path(young).exists()
    assert not folder.exists()


def test_a_client_of_a_test_sends_nothing_after_its_block(cosmos_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited_for, look, looked_while_open = threading.Event(), _GlobalEndpointManager._endpoints_health_check, []

    def late(manager: Any, **options: Any) -> None:
        waited_for.wait()
        looked_while_open.append(manager.client.pipeline_client._pipeline._transport.session is not None)
        look(manager, **options)  # type: ignore[no-untyped-call]

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        waited_for.set()
        joined(thread, timeout)

    joined = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", join)
    monkeypatch.setattr(_GlobalEndpointManager, "_endpoints_health_check", late)
    try:
        with cosmos_client(cosmos_server) as client:
            list(client.list_databases())
        assert looked_while_open == [True]
    finally:
        waited_for.set()


def test_the_two_cosmos_servers_are_two(cosmos_server: str, cosmos_server_backup: str) -> None:
    assert cosmos_server != cosmos_server_backup


def test_postgres_answers(postgres_database: str) -> None:
    with closing(psycopg.connect(postgres_database.replace("+psycopg", ""))) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_wants_its_password(postgres_database: str) -> None:
    url = sqlalchemy.make_url(postgres_database).set(drivername="postgresql", password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_postgres_has_collations_that_ignore_case(postgres_database: str) -> None:
    with closing(psycopg.connect(postgres_database.replace("+psycopg", ""))) as connection:
        connection.execute(
            "CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        assert connection.execute("SELECT 'a' = 'A' COLLATE ignoring_case").fetchone() == (True,)


def test_a_server_ends_with_its_killed_owner(tmp_path: Path) -> None:
    # At an address of its own, or the next server of another test may be given the port that is free again.
    server = """
import socket, time
listening = socket.create_server(("127.66.66.66", 0))
print(listening.getsockname()[1], flush=True)
time.sleep(60)
"""
    owner = """
import pathlib, sys, time
from tests.emulators.servers import running
with running([sys.executable, "-c", sys.argv[1]], pathlib.Path(sys.argv[2]), r"(\\d+)\\s") as found:
    print(found[1], flush=True)
    time.sleep(60)
"""
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", owner, server, tmp_path], cwd=repository, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        socket.create_connection(("127.66.66.66", port)).close()
        process.kill()
    for _ in range(100):
        try:
            socket.create_connection(("127.66.66.66", port)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.1)
    pytest.fail("the server still accepts connections 10 s after its owner was killed")


def test_a_server_that_ends_at_once_fails_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no room left')"]
    with (
        pytest.raises(servers.ServerFailed, match="no room left"),
        servers.running(command, tmp_path, "never"),
    ):
        pass
