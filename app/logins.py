"""Names and passwords of those who may use a server that asks for a login."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from audiolm.errors import RequestError


class Logins:
    """Of a file of lines NAME:PASSWORD; empty lines and those that begin with # are left out."""

    def __init__(self, path: Path) -> None:
        """Raises RequestError where the file is missing, empty, not of that form, or readable by others."""
        try:
            mode = path.stat().st_mode
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--auth: {path} cannot be read ({error})") from error
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RequestError(f"--auth: others may read {path}; chmod 600 it")
        pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
        if not pairs or not all(name and password for name, _, password in pairs):
            raise RequestError(f"--auth: {path} must hold lines of the form NAME:PASSWORD")
        self._passwords = {name: password.encode() for name, _, password in pairs}

    def __call__(self, name: str, password: str) -> bool:
        """Whether the password is the name's; takes as long for a name that nobody has."""
        own = self._passwords.get(name)
        right = hmac.compare_digest(password.encode(), own if own is not None else b"\0nobody")
        return right and own is not None
