"""Each kind of sink with its real server: a broker that comes and goes, a queue, e-mail; and who is not trusted."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import kombu
import pytest
from aiosmtpd.controller import Controller
from azure.storage.queue import QueueServiceClient

from backup.config.settings import load_settings
from backup.core.errors import BadRequest, ConfigError
from backup.entry.notify_api import answer_delivery, answer_test, post_test
from backup.jobs.events import DIGEST
from backup.notify import delivery
from backup.notify.people import People, message_of
from tests.emulators.front import self_signed
from tests.emulators.rabbit import Rabbit
from tests.scenarios.hooks import Hook, hook
from tests.scenarios.post import SECRET, kinds, post


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


# RabbitMQ


def test_a_broker_that_is_down_gets_its_events_when_it_is_back(
    tmp_path: Path, rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    with post(tmp_path, broker_url=rabbit.url, broker_queue="events") as office:
        runs = [office.ran()]
        office.deliver()
        assert len(office.waiting()) == 1
        rabbit.start()
        office.at += timedelta(seconds=1)
        office.ran("It broke.")
        office.deliver(minutes=2)
        assert office.waiting() == []
        with kombu.Connection(rabbit.url) as connection:
            # Somebody may have made it with other arguments; it is used as it is.
            kombu.Queue("quorum", queue_arguments={"x-queue-type": "quorum"})(connection.channel()).queue_declare()
            queue = kombu.Queue("events", durable=True)(connection.channel())
            messages = [queue.get(no_ack=True) for _ in range(3)]
        assert [message and json.loads(message.body)["type"] for message in messages] == [
            "backup.sync.completed",
            "backup.sync.failed",
            None,
        ]
        first = messages[0]
        assert (first.content_type, first.delivery_info["routing_key"]) == ("application/cloudevents+json", "events")
        assert (first.properties["delivery_mode"], json.loads(first.body)["data"]["syncId"]) == (2, runs[0].sync_id)
        other = load_settings({"Notify__BrokerUrl": rabbit.url, "Notify__BrokerQueue": "quorum"})
        assert answer_test(other).status == 200
        wrong = load_settings({"Notify__BrokerUrl": rabbit.url.replace("guest:guest", "guest:wrong-password")})
        [refused] = answer_test(wrong).body["sinks"]
        assert (refused["sent"], "wrong-password" in json.dumps(refused)) == (False, False)
        rabbit.stop()
        office.ran()
        office.deliver(minutes=2)
        assert len(office.waiting()) == 1
    assert "guest:guest" not in caplog.text


class Sender:
    """Stands in for a sender of Azure Service Bus, of which there is no server here."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_messages(self, message: Any) -> None:
        self.sent.append(message)

    def close(self) -> None:
        pass


def test_service_bus_gets_the_event_in_the_body_of_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    senders: dict[str, Sender] = {}
    make = "azure.servicebus.ServiceBusClient.get_queue_sender"
    monkeypatch.setattr(make, lambda _, queue, **__: senders.setdefault(queue, Sender()))
    with post(tmp_path, broker_url="azureservicebus://Send:a2V5a2V5a2V5a2V5@shop", broker_queue="my-events") as office:
        run = office.ran()
        office.deliver()
        assert office.waiting() == []
    assert [*senders] == ["my-events"]
    [message] = senders["my-events"].sent
    envelope = json.loads(str(message))
    event = json.loads(base64.b64decode(envelope["body"]))
    assert (event["data"]["syncId"], envelope["content-type"]) == (run.sync_id, "application/cloudevents+json")


# Azure Storage


def test_a_queue_of_the_account_gets_events_as_a_trigger_expects_them(tmp_path: Path, azurite: str) -> None:
    with post(tmp_path, azurite, storage_queue="my-events") as office:
        run = office.ran()
        office.deliver()
        queue = QueueServiceClient.from_connection_string(azurite).get_queue_client("my-events")
        message: Any = queue.receive_message()
        event = json.loads(base64.b64decode(message.content))
        assert (event["data"]["syncId"], message.expires_on.year) == (run.sync_id, 9999)
        office.ran()
        office.deliver()  # the queue is there already
        assert office.waiting() == []


def test_an_account_that_is_down_keeps_its_events(tmp_path: Path) -> None:
    account = (
        "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;"
        "TableEndpoint=http://127.0.0.1:1/a;QueueEndpoint=http://127.0.0.1:1/a;"
    )
    settings = load_settings({"AzureWebJobsStorage": account, "Notify__StorageQueue": "events"})
    [row] = answer_test(settings).body["sinks"]
    assert (row["sent"], "nothing answers there" in row["error"]) == (False, True)


# People


class Mailbox:
    """Keeps what comes by e-mail."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@contextmanager
def mail_server(mailbox: Mailbox, port: int = 0) -> Iterator[int]:
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def test_people_get_a_mail_also_when_their_server_was_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        pass  # it is down now, and its port is known
    address = f"mailto://127.0.0.1:{port}?from=backup@shop.example&to=ada@shop.example&mode=insecure&format=text"
    with post(tmp_path, urls=address) as office:
        run = office.ran("The guard stopped it: 97 of 100 records.", error_kind="GuardTripped")
        office.ran()
        office.deliver()
        assert kinds(office.waiting()) == ["sync.guard-tripped"]
        with mail_server(mailbox, port):
            office.deliver(minutes=2)
        [mail] = mailbox.mails
        assert mail["To"] == "ada@shop.example"
        assert mail["Subject"] == "Backup: sync of customer stopped by the guard"
        text = mail.get_body(("plain",)).get_content()
        assert "GuardTripped The guard stopped it: 97 of 100 records." in text
        assert run.sync_id in text
        assert office.waiting() == []
    assert "ada@shop.example" not in caplog.text


@pytest.mark.parametrize("address", ["slak://a/b/c", "mailto://"])
def test_an_address_that_apprise_does_not_know_is_said_without_it(address: str) -> None:
    [row] = answer_test(load_settings({"Notify__Urls": f"{address}secret-token-0123"})).body["sinks"]
    assert not row["sent"]
    assert "secret-token-0123" not in json.dumps(row)
    assert ("Did you mean slack?" in row["error"]) == address.startswith("slak")


def test_without_its_package_a_sink_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("apprise", "kombu"):
        monkeypatch.setitem(sys.modules, package, None)
    rows = answer_test(
        load_settings({"Notify__Urls": "slack://a/b/c", "Notify__BrokerUrl": "amqp://127.0.0.1:1//"})
    ).body["sinks"]
    assert [row["sent"] for row in rows] == [False, False]
    assert ["requirements/brokers.txt" in rows[0]["hint"], "requirements/people.txt" in rows[1]["hint"]] == [True, True]


def test_an_event_of_another_release_reaches_people_as_it_is(receiver: Hook) -> None:
    sink = People("people1", "people1 (json)", timedelta(days=3), receiver.url.replace("http", "json"))
    with sink.opened() as send:
        send({"type": "backup.moon.risen", "data": {"service": "customer", "moons": 2}})
    [request] = receiver.requests
    assert ("backup.moon.risen" in request.event["title"], '"moons": 2' in request.event["message"]) == (True, True)


def test_a_digest_reads_like_a_letter() -> None:
    row = {
        "service": "customer",
        "completed": 1,
        "failed": 1,
        "inserted": 3,
        "updated": 0,
        "deleted": 1,
        "error": "No.",
    }
    data = {"from": "a", "to": "b", "completed": 1, "failed": 1, "overdue": ["order"], "services": [row]}
    title, text = message_of({"type": DIGEST, "data": {**data, "isComplete": True}})
    assert title == "Backup: 1 sync completed, 1 failed, 1 silent"
    assert "customer: 1 completed, 1 failed; 3 inserted, 0 updated, 1 deleted. Last error: No." in text


# Who is not trusted


@pytest.mark.parametrize("scheme", ["https", "amqps"])
def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing(scheme: str) -> None:
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                with self_signed().wrap_socket(server.accept()[0], server_side=True) as client:
                    received.append(client.recv(100))
            except OSError:
                pass

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        address = f"{scheme}://ada:password0@127.0.0.1:{server.getsockname()[1]}/"
        setting = "Notify__Webhooks" if scheme == "https" else "Notify__BrokerUrl"
        [row] = answer_test(load_settings({setting: address, "Notify__WebhookSecret": SECRET})).body["sinks"]
        assert "certificate" in row["error"]
        assert [message for message in received if message] == []


def test_a_redirection_is_not_followed(tmp_path: Path, receiver: Hook) -> None:
    with hook() as other, post(tmp_path, webhooks=receiver.url) as office:
        receiver.status, receiver.location = 307, other.url
        office.ran()
        office.deliver()
        assert (len(receiver.requests), other.requests) == (1, [])


def test_a_server_that_answers_a_byte_at_a_time_holds_neither_a_test_nor_its_thread_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(delivery, "_CUT_AFTER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            client = server.accept()[0]
            with client, suppress(OSError):
                while not threading.Event().wait(0.05):
                    client.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        given = {"Notify__Webhooks": address, "Notify__WebhookSecret": SECRET}
        [row] = answer_test(load_settings(given)).body["sinks"]
        wait([delivery._left_behind["webhook1"]])  # until its thread has ended, nobody sends anything to the webhook
        thread.join()
    assert "did not answer within" in row["error"]


def test_an_address_is_in_no_log_though_its_server_answers_nonsense_and_its_login_is_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client = server.accept()[0]
            with client:
                requests.append(client.recv(65_536))
                client.sendall(b"HTTP/1.1 204 Well\r\nthis is no header\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://ada:pass%20word@127.0.0.1:{server.getsockname()[1]}/token-0123456789?sig=s-0123456789"
        assert answer_test(load_settings({"Notify__Webhooks": address, "Notify__WebhookSecret": SECRET})).status == 200
        thread.join()
    assert b"\r\nAuthorization: Basic " + base64.b64encode(b"ada:pass word") + b"\r\n" in requests[0]
    assert "0123456789" not in caplog.text


# The test of all sinks


def test_a_test_says_of_each_sink_whether_it_went(receiver: Hook) -> None:
    with hook() as broken:
        broken.status = 500
        given = {"Notify__Webhooks": f"{receiver.url} {broken.url}", "Notify__WebhookSecret": SECRET}
        answer = answer_test(load_settings(given))
        assert (answer.status, answer.body["success"]) == (207, False)
        assert answer.body["message"] == "1 of 2 sinks took the test event"
        assert answer.body["sinks"] == [
            {"sink": "webhook1", "label": "webhook1 (127.0.0.1)", "sent": True, "error": None, "hint": None},
            {
                "sink": "webhook2",
                "label": "webhook2 (127.0.0.1)",
                "sent": False,
                "error": "It answered HTTP 500.",
                "hint": None,
            },
        ]
        assert kinds(receiver.events) == ["test"]
        receiver.status = 500
        assert answer_test(load_settings(given)).status == 503
        receiver.status = broken.status = 204
        assert post_test(load_settings(given), {}, b"").status == 200


def test_a_test_without_a_sink_and_one_with_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="nobody is told"):
        answer_test(load_settings({}))
    with pytest.raises(BadRequest):
        post_test(load_settings({}), {"sink": "x"}, b"")


def test_the_command_sends_what_waits_and_says_what_still_does(tmp_path: Path, receiver: Hook) -> None:
    receiver.status = 500
    with post(tmp_path, webhooks=receiver.url) as office:
        office.ran()
        office.deliver()
        answer = answer_delivery(office.settings, office.job_queue)  # it does not mind the pause after a failure
        [row] = answer.body["sinks"]
        assert (answer.status, row["sent"], row["waiting"], row["error"]) == (503, 0, 1, "It answered HTTP 500.")
        receiver.status = 204
        answer = answer_delivery(office.settings, office.job_queue)
        [row] = answer.body["sinks"]
        assert (answer.status, row["sent"], row["waiting"], row["error"]) == (200, 1, 0, None)
