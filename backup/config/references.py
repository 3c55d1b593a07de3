"""Refuses references to a vault that Azure should have replaced with a value before the app started."""

from __future__ import annotations

import re
from urllib.parse import unquote

from backup.core.errors import ConfigError
from backup.core.suggestions import subject

_REFERENCE = re.compile(r"@\s*Microsoft\.(?:KeyVault|AppConfiguration|\w+\s*\()", re.I)


def refuse_reference(value: str, setting: str) -> None:
    """Raises ConfigError for a value that is, or contains, a reference to Key Vault or App Configuration.

    The error does not quote the value.
    """
    if _REFERENCE.search(unquote(value)):  # a URL may encode it
        raise ConfigError(
            f"{subject(setting)} is still a reference (@Microsoft.KeyVault…), or has one in it: Azure could not "
            "resolve it.",
            hint="Give the app's identity the role Key Vault Secrets User on the vault, let the vault's firewall admit "
            "the app, and check the secret's name; the portal shows why beside the setting. A reference has to be the "
            "whole value; on a laptop nobody resolves it.",
        )
