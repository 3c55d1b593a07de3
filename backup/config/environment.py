"""The environment of this process: its variables, read and filled. Only this module touches it."""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from pathlib import Path

from backup.core.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(\w+)\}")


def own_variables() -> dict[str, str]:
    """Returns the variables of this process, by name."""
    return dict(os.environ)


def default_jobs_file() -> str:
    """Returns a file in this user's state folder, one for each folder that the app runs in; empty where there is no
    such folder."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return str(state / "backup" / sha256(os.fsencode(Path.cwd())).hexdigest()[:16] / "jobs.db")
    except (RuntimeError, OSError):  # a user without a home, a folder that was removed
        return ""


def current_folder() -> Path:
    """Returns the folder that the process runs in. Raises ConfigError if somebody has removed it: a file of settings in
    it may have been the only one."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"The folder that this process runs in cannot be used: {error.strerror}.",
            hint="It was probably removed or replaced. Start again in a folder that is there.",
        ) from None


def use_local_settings(path: Path) -> None:
    """Puts the `Values` of a file like local.settings.json into the environment, unless it has the name already.

    Takes local.settings.json of a folder, if there is one. A value `${NAME}` is that of the variable NAME. For the
    command line only: in Azure and under `func start` the host does this. Raises ConfigError for a file that is missing
    or cannot be read, and for a variable without a value.
    """
    file = path / "local.settings.json" if path.is_dir() else path
    if file != path and not file.exists():
        return
    hint = 'It is JSON like local.settings.json: {"Values": {"NAME": "value"}}.'
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig")).get("Values", {})
        texts = {name: str(value) for name, value in values.items() if name not in os.environ}
    except FileNotFoundError:
        raise ConfigError(f"There is no file {file}.", hint="Name an existing one with --config.") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file.name} cannot be read: {error}.", hint=hint) from None
    for name, text in texts.items():
        reference = _REFERENCE.fullmatch(text)
        if reference is not None and not os.environ.get(reference[1]):
            raise ConfigError(
                f"{file.name} takes {name} from the variable {reference[1]}, which has no value.",
                hint=f"Set {reference[1]} in the environment. `python -m backup export-config` leaves secrets out in "
                "this way.",
            )
        os.environ[name] = text if reference is None else os.environ[reference[1]]


def variable_named(name: str) -> str | None:
    """Returns the value of the environment variable of this name; None without one."""
    return os.environ.get(name) or None


def terminal_columns() -> int | None:
    """Returns the width of the terminal from the variable COLUMNS; None if that has no width."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def has_easy_auth() -> bool:
    """Whether Azure's sign-in (Easy Auth) is in front of the app. Azure says so in the variable WEBSITE_AUTH_ENABLED,
    which no request can set."""
    return os.environ.get("WEBSITE_AUTH_ENABLED", "").strip().lower() in ("true", "1")
