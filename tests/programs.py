"""Python programs as processes of their own, without the second of CPU that their imports take.

A process that has imported what the app is built on, and has made one backup, forks, and the fork becomes the program:
with its own arguments, environment, folder and standard streams, killable as any other. It begins as `python` would
begin it, for no module of the app looks at its surroundings when it is imported, and what the app remembers of a backup
(statements that it has made, settings that it has read) is the same in each process. What it cannot show: how long a
start takes, how much memory a process has, what is imported when. Tests of these start Python itself.

`python -P -m tests.programs DESCRIPTOR` is the process that forks. It ends when the socket of that descriptor does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from backup.core.run_values import Trigger
from backup.mirror.verification import Depth

ROOT = Path(__file__).parent.parent
_FORKING = threading.Lock()
_HEADER_BYTES = 8
END_SECONDS = 10


class Program:
    """A program that was started; what `subprocess.Popen` is to a command, with text for its streams.

    Each stream is a descriptor, a file, PIPE, DEVNULL, or None for this process's own.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], stdin: Any, stdout: Any, stderr: Any
    ) -> None:
        """`arguments` are those of Python, of which -m, -c and a file are known, and -P before them."""
        self.args = arguments
        self.returncode: int | None = None
        with contextlib.ExitStack() as given:
            self.stdin, its_stdin = _stream(stdin, 0, given)
            self.stdout, its_stdout = _stream(stdout, 1, given)
            self.stderr, its_stderr = _stream(stderr, 2, given)
            self._news, its_news = socket.socketpair()
            given.enter_context(its_news)
            order = {"arguments": list(arguments), "folder": str(folder), "env": dict(env)}
            _order(order, [its_stdin, its_stdout, its_stderr, its_news.fileno()])
        self._told = self._news.makefile("r")
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None while it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        while self.returncode is None:
            status = self._next_status(timeout)
            if not os.WIFSTOPPED(status):
                self.returncode = os.waitstatus_to_exitcode(status)
                self._told.close()
                self._news.close()
        return self.returncode

    def wait_until_stopped(self, timeout: float) -> None:
        """Returns once a signal has stopped it. Raises subprocess.TimeoutExpired; AssertionError where it ended."""
        assert os.WIFSTOPPED(self._next_status(timeout)), self.stderr and self.stderr.read()

    def _next_status(self, timeout: float | None) -> int:
        if not select.select([self._news], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return int(self._told.readline())

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it writes from here on, once it has ended; its input is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        streams = [stream for stream in (self.stdout, self.stderr) if stream and not stream.closed]
        texts = {stream.fileno(): b"" for stream in streams}
        left = set(texts)
        while left:
            remaining = None if deadline is None else max(0, deadline - time.monotonic())
            if not (ready := select.select(left, [], [], remaining)[0]):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            for descriptor in ready:
                part = os.read(descriptor, 65536)
                texts[descriptor] += part
                if not part:
                    left.remove(descriptor)
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        outputs = [
            texts[stream.fileno()].decode() if stream in streams else "" for stream in (self.stdout, self.stderr)
        ]
        for stream in streams:
            stream.close()
        return outputs[0], outputs[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if error is not None:  # whoever leaves the block so, the test's alarm above all, waits for nothing
            self.kill()
        self.wait()


def _stream(wanted: Any, number: int, given: contextlib.ExitStack) -> tuple[IO[str] | None, int]:
    """This side's end, if it is a pipe, and the program's descriptor."""
    if wanted == subprocess.PIPE:
        reading, writing = os.pipe()
        mine, its = (writing, reading) if number == 0 else (reading, writing)
        given.callback(os.close, its)
        return os.fdopen(mine, "w" if number == 0 else "r"), its
    if wanted == subprocess.DEVNULL:
        nowhere = os.open(os.devnull, os.O_RDWR)
        given.callback(os.close, nowhere)
        return None, nowhere
    if wanted is None:
        return None, number
    return None, wanted if isinstance(wanted, int) else wanted.fileno()


def _order(order: dict[str, Any], descriptors: list[int]) -> None:
    content = json.dumps(order).encode()
    with _FORKING:
        control = _zygote()
        socket.send_fds(control, [f"{len(content):{_HEADER_BYTES}}".encode()], descriptors)
        control.sendall(content)


@cache
def _zygote() -> socket.socket:
    """The socket of the process that forks, one for this process."""
    mine, its = socket.socketpair()
    env = {name: value for name, value in os.environ.items() if "__" not in name}
    with its:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.programs", str(its.fileno())],
            cwd=ROOT,
            env={**env, "PYTHONPATH": str(ROOT)},
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for pytest
        )

    def end() -> None:
        mine.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # no test waits for it, so no test's time limit would end this
            process.kill()

    atexit.register(end)
    return mine


# From here on: inside the process that forks.


IMPORTED = (
    *("backup.entry.command_line.app", "backup.dev.host", "backup.stores.sql.store", "backup.stores.cosmos.store"),
    *("backup.stores.sql.engines.sqlite.dialect", "backup.stores.sql.engines.postgresql.dialect", "croniter"),
    *("backup.stores.sql.engines.sqlite.urls", "backup.stores.sql.engines.postgresql.urls"),
    *(
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.dialects.postgresql.psycopg",
        "psycopg",
        "backup.jobs.sqlite_key_values",
    ),
    *("azure.cosmos", "azure.storage.blob", "azure.functions", "azure_functions_runtime", "uvicorn", "starlette"),
    *("azure.data.tables", "backup.jobs.table_key_values", "rich.markdown", "typer.rich_utils"),
)


@cache
def prepare_to_fork() -> None:
    """Imports what programs import sooner or later, and does once what each does at first: a third of a short command.
    Has the garbage collector of forks leave all that alone."""
    for module in IMPORTED:
        importlib.import_module(module)
    _make_a_backup()
    gc.collect()
    gc.freeze()


def _make_a_backup() -> None:
    from backup.stores import pools
    from tests.scenarios.places import filled_on_sqlite

    with tempfile.TemporaryDirectory() as folder:
        registry = filled_on_sqlite(Path(folder)).registry
        for _ in range(2):
            assert not any(outcome.error for outcome in registry.sync("all", Trigger.CLI))
        for service in map(registry.get, ("customer", "order")):
            service.verify(Depth(full=True))
            list(service.past.history(1))
        pools.close_idle()


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Forks on each order, and tells how the forks fare. Returns an order in the fork; None once nobody orders more."""
    running: dict[int, socket.socket] = {}
    woken, waking = socket.socketpair()
    for end in (woken, waking):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    while True:
        if woken in select.select([control, woken], [], [])[0]:
            woken.recv(65536)
            _tell_of_children(running)
            continue
        header, descriptors, _, _ = socket.recv_fds(control, _HEADER_BYTES, 4)
        if not header:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return None
        content = b""
        while len(content) < int(header):
            content += control.recv(int(header) - len(content))
        order: dict[str, Any] = json.loads(content)
        news = socket.socket(fileno=descriptors[3])
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, descriptor in enumerate(descriptors[:3]):
                os.dup2(descriptor, number)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            for own in (control, woken, waking, news, *running.values()):
                own.close()
            return order
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        running[pid] = news
        news.sendall(f"{pid}\n".encode())


def _tell_of_children(running: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            running[pid].sendall(f"{status}\n".encode())
        if not os.WIFSTOPPED(status):
            running.pop(pid).close()


def _become(order: dict[str, Any]) -> int:
    """Runs the program; its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None
    time.tzset()
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = _text(0, "r", encoding, errors or "strict")
    sys.stdout = _text(1, "w", encoding, errors or "strict")
    sys.stderr = _text(2, "w", encoding, "backslashreplace")
    arguments: list[str] = order["arguments"]
    if arguments[0] == "-P":
        arguments = arguments[1:]
    elif arguments[0] in ("-m", "-c"):
        sys.path.insert(0, order["folder"] if arguments[0] == "-m" else "")
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            code = compile(arguments[1], "<string>", "exec", dont_inherit=True)
            exec(code, {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _text(descriptor: int, mode: str, encoding: str, errors: str) -> Any:
    """A standard stream, which writes by the line on a terminal and where errors are told."""
    return open(descriptor, mode, 1 if descriptor == 2 else -1, encoding, errors, closefd=False)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as ordering:
        prepare_to_fork()
        taken = _serve(ordering)
    if taken is not None:
        code = _become(taken)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                output.flush()
        os._exit(code)
