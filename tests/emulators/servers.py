"""Starts the servers that tests talk to: Azurite, a Cosmos server and PostgreSQL, none of which needs Docker.

Each is a context manager: it gives the address of a new, empty server that belongs to the caller alone, and
ends the server when left. A server also ends when this process does, killed or not. Ports are free ones, data
is thrown away. Nothing is installed here: a missing program is a ServerMissing that says how to get it.
"""

import base64
import hashlib
import hmac
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import sqlalchemy

from tests.emulators import guard
from tests.emulators.folders import server_folder

NODE_PROGRAMS = Path(__file__).parent / "node_modules" / ".bin"
START_SECONDS = 100
PARSED_QUERIES = 1_000
COMPUTE = "/~compute"
"""Where the Cosmos server computes a query about the documents in the request."""
LOCK_MILLISECONDS = 2_000
_EMPTIED: dict[str, list[str]] = {}
"""The databases of each server that wait for their next block."""

# Published by Microsoft for its emulators, so they protect nothing. Both servers here accept any key.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
COSMOS_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="


class ServerMissing(Exception):
    """A program that a server needs is not installed."""


class ServerFailed(Exception):
    """A server ended, or said nothing of being ready; the message holds its log."""


@contextmanager
def azurite() -> Iterator[str]:
    """The connection string of an Azurite with blobs, queues and tables, all in memory."""
    command = [
        *_node_program("azurite"),
        *("--blobPort", "0", "--queuePort", "0", "--tablePort", "0"),
        # Without the flag every call of an SDK newer than this Azurite is a 400.
        *("--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--disableTelemetry"),
    ]
    ready = (
        "".join(rf".*{kind} service is successfully \S+ at \S+:(\d+)" for kind in ("Blob", "Queue", "Table")) + r"\s"
    )
    with server_folder("azurite") as home, running(command, home, ready) as match:
        blob_port, queue_port, table_port = match.groups()
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{blob_port}/devstoreaccount1;"
            f"QueueEndpoint=http://127.0.0.1:{queue_port}/devstoreaccount1;"
            f"TableEndpoint=http://127.0.0.1:{table_port}/devstoreaccount1;"
        )


class CosmosAccounts(NamedTuple):
    """The connection strings of four accounts that know nothing of each other."""

    source: str
    backup: str
    plain: str
    """Without TLS: for what stands before it, the SDK wants TLS."""
    plain_backup: str


@contextmanager
def cosmos() -> Iterator[CosmosAccounts]:
    """Cosmos DB accounts, in memory, in one process: a start costs a second of a processor, and what it has compiled
    serves all four. It is no emulator: it has gaps.

    It keeps connections, as Azure does, and closes none before its client does. Its own program would have a handshake
    for each request, which costs both ends several times what the request does. It parses a query once, and not once
    for each container: that took a third of its time. At `COMPUTE` its engine answers queries about documents that come
    with them.
    """
    node, program = _node_program("cosmosdb-server")
    package = json.dumps(str(Path(program).resolve().parents[1]))
    script = (
        f"const queries = require(require.resolve('@zeit/cosmosdb-query', {{ paths: [{package}] }}));"
        "const parse = queries.default, parsed = new Map();"
        "queries.default = text => {"
        f"  if (!parsed.has(text) && parsed.size >= {PARSED_QUERIES}) parsed.clear();"
        "  if (!parsed.has(text)) parsed.set(text, parse(text));"
        "  return parsed.get(text);"
        "};"
        f"const makers = require({package});"
        "function serve(maker) {"
        "  const server = makers[maker]({ keepAlive: true });"
        "  const [answer] = server.listeners('request');"
        "  server.removeAllListeners('request');"
        "  server.on('request', (request, response) => {"
        f"    if (request.url !== '{COMPUTE}') return answer(request, response);"
        "    const chunks = [];"
        "    request.on('data', chunk => chunks.push(chunk)).on('end', () => {"
        "      try {"
        "        const { query, parameters, documents } = JSON.parse(Buffer.concat(chunks));"
        "        response.end(JSON.stringify(queries.default(query).exec(documents, { parameters }).result));"
        "      } catch (error) {"
        "        response.statusCode = 400;"
        "        response.end(String(error));"
        "      }"
        "    });"
        "  });"
        "  server.keepAliveTimeout = 0;"
        "  return new Promise(done => server.listen(0, '127.0.0.1', () => done(server.address().port)));"
        "}"
        "const tls = 'createHttpsServer', plain = 'createHttpServer';"
        "Promise.all([tls, tls, plain, plain].map(serve))"
        "  .then(ports => console.log('Listening at ' + ports.join(' ')));"
    )
    ready = r"Listening at (\d+) (\d+) (\d+) (\d+)\s"
    with server_folder("cosmos") as home, running([node, "-e", script], home, ready) as match:
        schemes = ("https", "https", "http", "http")
        yield CosmosAccounts(
            *(
                f"AccountEndpoint={scheme}://127.0.0.1:{port}/;AccountKey={COSMOS_KEY};"
                for scheme, port in zip(schemes, match.groups(), strict=True)
            )
        )


@contextmanager
def postgres(iterations: int = 1) -> Iterator[str]:
    """The SQLAlchemy URL of the database `postgres` in a new cluster, as its superuser.

    A login takes so many `iterations` of a hash on both sides: PostgreSQL makes thousands unless told.
    """
    programs = _postgres_programs()
    password = secrets.token_hex(8)
    with server_folder("postgres") as home, ExitStack() as stack:
        data = home / "data"
        password_file = home / "password"
        password_file.write_text(_scram_secret(password, iterations))
        unprivileged = as_unprivileged_user(home, password_file)
        subprocess.run(
            [
                *unprivileged,
                *(programs / "initdb", "--pgdata", data, "--no-sync", "--encoding=UTF8", "--locale=C"),
                *("--username=postgres", f"--pwfile={password_file}", "--auth=scram-sha-256"),
            ],
            cwd=home,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        port = _serve_cluster(stack, data, [*unprivileged, programs / "postgres"], "accept connections")
        yield f"postgresql+psycopg://postgres:{password}@127.0.0.1:{port}/postgres"


@contextmanager
def postgres_standby(server: str) -> Iterator[str]:
    """The SQLAlchemy URL of the database `postgres` on a standby of the server, which follows it and only reads."""
    programs, primary = (_postgres_programs() / "initdb").resolve().parent, sqlalchemy.make_url(server)
    if not (programs / "pg_basebackup").exists():
        raise ServerMissing(f"{programs} lacks pg_basebackup, which makes a standby")
    with server_folder("standby") as home, ExitStack() as stack:
        unprivileged = as_unprivileged_user(home)
        subprocess.run(
            [
                *(
                    *unprivileged,
                    programs / "pg_basebackup",
                    "--pgdata",
                    home / "data",
                    "--checkpoint=fast",
                    "--no-sync",
                ),
                *(f"--host={primary.host}", f"--port={primary.port}", "--username=postgres", "--write-recovery-conf"),
            ],
            cwd=home,
            check=True,
            env={**os.environ, "PGPASSWORD": str(primary.password)},
        )
        command = [*unprivileged, programs / "postgres"]
        port = _serve_cluster(stack, home / "data", command, "accept read-only connections")
        yield primary.set(port=port).render_as_string(hide_password=False)


def _serve_cluster(stack: ExitStack, data: Path, command: Sequence[str | Path], ready: str) -> int:
    """The port of a server of this cluster, which ends with the stack."""
    for attempt in range(5):
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",  # a test that loses power is run again
            "full_page_writes": "off",
            "jit": "off",
            "autovacuum": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        try:
            stack.enter_context(running([*command, "-D", data, *options], data.parent, f"system is ready to {ready}"))
        except ServerFailed as failed:
            # PostgreSQL cannot choose its port, so another program may have taken it in the meantime.
            if attempt == 4 or "Address already in use" not in str(failed):
                raise
        else:
            return port
    raise AssertionError("the last attempt raises")


@contextmanager
def postgres_database(server: str, template: str = "template1") -> Iterator[str]:
    """The SQLAlchemy URL of a new database of the server, a copy of the template; it is dropped with the block."""
    url = _new_database(server, template)
    try:
        yield url
    finally:
        _drop_database(server, url)


@contextmanager
def lent_database(server: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of the server. An earlier block may have had it, and emptied it.

    A new database costs the server a quarter of a second of CPU, most of it in sessions that do not know its catalogue
    yet; here those that a pool keeps go on. Roles and settings of the database stay: whoever makes such takes a
    `postgres_database`.
    """
    emptied = _EMPTIED.setdefault(server, [])
    url = emptied.pop() if emptied else _new_database(server, "template1")
    try:
        yield url
    finally:
        try:
            _empty(url)
        except sqlalchemy.exc.OperationalError:  # a session of the block that nobody ended holds a lock
            _drop_database(server, url)
        else:
            emptied.append(url)


def _new_database(server: str, template: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    with _administering(server) as cx:
        # As files, and not through the log, which takes five times as much.
        strategy = "STRATEGY file_copy" if (cx.dialect.server_version_info or (0,)) >= (15,) else ""
        cx.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
    return sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)


def _drop_database(server: str, url: str) -> None:
    database_engine(url).dispose()
    with _administering(server) as cx:
        cx.exec_driver_sql(f"DROP DATABASE {sqlalchemy.make_url(url).database} WITH (FORCE)")


def _empty(url: str) -> None:
    """Drops all that users made in the database. Raises: OperationalError where somebody holds a lock on it."""
    own = "SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    with database_engine(url).begin() as cx:
        cx.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
        schemas = ", ".join(cx.exec_driver_sql(own).scalars())
        if schemas:
            cx.exec_driver_sql(f"DROP SCHEMA {schemas} CASCADE")
        with_owner = (cx.dialect.server_version_info or (0,)) >= (15,)  # as each version has it in a new database
        cx.exec_driver_sql(f"CREATE SCHEMA public {'AUTHORIZATION pg_database_owner' if with_owner else ''}")
        cx.exec_driver_sql(f"GRANT {'USAGE' if with_owner else 'ALL'} ON SCHEMA public TO PUBLIC")


def _administering(server: str) -> AbstractContextManager[sqlalchemy.Connection]:
    return database_engine(server).execution_options(isolation_level="AUTOCOMMIT").connect()


@cache
def database_engine(url: str) -> sqlalchemy.Engine:
    """Keeps one connection open, until the database is dropped: a new one costs both ends 10 ms. Asks a server once
    what an engine asks at first."""
    return sqlalchemy.create_engine(url, pool_size=1, max_overflow=-1, pool_pre_ping=True)


@contextmanager
def running(command: Sequence[str | Path], home: Path, ready: str) -> Iterator[re.Match[str]]:
    """Run a server until the block is left; gives what the expression `ready` found in its log.

    Raises: ServerFailed, and then the server is gone.
    """
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *command],
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest, which still needs its servers to clean up
        )
    try:
        yield _wait_until_ready(process, log, ready)
    finally:
        if process.stdin is not None:
            process.stdin.close()  # on which it ends the server
        try:
            process.wait(3 * guard.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # nothing else limits the time of what ends after the last test
            process.wait()


def _scram_secret(password: str, iterations: int) -> str:
    """What PostgreSQL keeps of the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client, server = (hmac.digest(salted, text, "sha256") for text in (b"Client Key", b"Server Key"))
    encoded = (base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *encoded)


def _node_program(name: str) -> list[str | Path]:
    node, program = shutil.which("node"), NODE_PROGRAMS / name
    if node is None:
        raise ServerMissing(f"{name} needs Node 20 or newer: install it with npm, then run `make setup`")
    if not program.exists():
        raise ServerMissing(f"{name} is not installed: run `make setup` where npm and a network are at hand")
    return [node, program]


def _postgres_programs() -> Path:
    """The folder of initdb and postgres. Debian keeps it off the PATH; the newest version is taken."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    if not (versions := sorted(installed, key=lambda initdb: int(initdb.parts[-3]))):
        # The PyPI packages that carry a server are built without ICU, which the collation tests need.
        raise ServerMissing("PostgreSQL is not installed: Debian and Ubuntu have it as `postgresql`")
    return versions[-1].parent


def as_unprivileged_user(*owned: Path) -> list[str | Path]:
    """What to put before a command that refuses to run as root; that user is given the paths."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    for path in owned:
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, ready: str) -> re.Match[str]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        if match := re.search(ready, text, re.DOTALL):
            return match
        if ended or time.monotonic() > deadline:
            happened = "ended" if ended else f"was not ready after {START_SECONDS} s"
            raise ServerFailed(f"{process.args!r} {happened}. Its log:\n{text[-4000:]}")
        time.sleep(0.05)
