"""Starts a RabbitMQ server, which can be stopped and started again with all that it holds. Needs no Docker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.emulators.folders import server_folder
from tests.emulators.servers import ServerMissing, as_unprivileged_user, free_port, running

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# epmd is started as a child, since the server's own would stay behind. Both are killed: a server that has not begun yet
# does not listen to SIGTERM, and a stop without a farewell is the harder test.
_SCRIPT = """
epmd -address 127.0.0.1 & epmd=$!
RUNNING_UNDER_SYSTEMD=1 "$0" & server=$!
trap 'kill -KILL $server $epmd; wait; exit 0' INT TERM
wait $server
kill -KILL $epmd
"""


class Rabbit:
    """A server on 127.0.0.1. `url` is its address, with the login of a user who may do all."""

    def __init__(self, home: Path) -> None:
        if not _PROGRAM.exists() or shutil.which("epmd") is None:
            raise ServerMissing("RabbitMQ is not installed: Debian and Ubuntu have it as `rabbitmq-server`")
        self._home, self._port, self._stack = home, free_port(), ExitStack()
        self._epmd, self._dist = free_port(), free_port()
        self._prefix = as_unprivileged_user(home)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        """Starts the server; returns once it answers."""
        # The log of quorum queues would be made of half a gigabyte of zeros first.
        lines = (f"listeners.tcp.1 = 127.0.0.1:{self._port}", "log.console = true", "raft.wal_max_size_bytes = 1048576")
        (self._home / "rabbitmq.conf").write_text("\n".join((*lines, "")))
        (self._home / "plugins").write_text("[].\n")
        values = {
            "HOME": self._home,
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_CONFIG_FILE": self._home / "rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._home / "plugins",
            "RABBITMQ_MNESIA_BASE": self._home,
            "RABBITMQ_LOG_BASE": self._home,
            "RABBITMQ_DIST_PORT": self._dist,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": self._epmd,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # One scheduler that does not spin while it waits: Erlang takes what it gets.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +SDio 1 +A 1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        command = [*self._prefix, "env", *(f"{name}={value}" for name, value in values.items())]
        self._stack.enter_context(running([*command, "sh", "-c", _SCRIPT, _PROGRAM], self._home, "startup complete"))

    def stop(self) -> None:
        """Kills the server; it keeps what it has confirmed for its durable queues."""
        self._stack.close()


@contextmanager
def rabbit() -> Iterator[Rabbit]:
    """A new server, which nobody has started yet: a start costs four seconds of a processor."""
    with server_folder("rabbit") as home:
        server = Rabbit(home)
        try:
            yield server
        finally:
            server.stop()
