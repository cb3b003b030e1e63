"""What a guest is told at its first boot: values; each system's own module makes the files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.errors import ConfigError

# What a guest writes on its console when it has installed everything, and cargo runs.
READY_LINE: Final = "orchestrator: this guest is ready"

HOST_KEY_FILE: Final = "ssh_host_ed25519_key"

_PUBLIC: Final = r"ssh-ed25519 AAAA[A-Za-z0-9+/]{64}={0,2}"
_PRIVATE: Final = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "(?:[A-Za-z0-9+/=]{1,76}\n)+"
    "-----END OPENSSH PRIVATE KEY-----\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKeys:
    """The keys that are made for a guest: its host key, and the one that may log in.

    Public halves have no comment. Raises ConfigError for anything but Ed25519 keys of OpenSSH.
    """

    host_private: str = field(repr=False)
    host_public: str
    client_public: str

    def __post_init__(self) -> None:
        """Refuse what must not get into a script or a YAML file."""
        for what, text in (("host", self.host_public), ("client", self.client_public)):
            if not re.fullmatch(_PUBLIC, text):
                raise ConfigError(
                    f"the {what} key of the guest is not a line `ssh-ed25519 AAAA...`"
                )
        if not re.fullmatch(_PRIVATE, self.host_private):
            raise ConfigError("the private host key of the guest is not a key of OpenSSH")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFile:
    """A file of a seed; the text may be a private key."""

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A volume that the guest reads once: an ISO 9660 file system of that label."""

    label: str
    files: tuple[SeedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is typed on the guest's serial line, once it has printed `awaits`."""

    awaits: str
    says: str


def key_files(keys: GuestKeys) -> tuple[SeedFile, ...]:
    """Return the host key's two files, and the list of keys that may log in."""
    return (
        SeedFile(name=HOST_KEY_FILE, text=keys.host_private),
        SeedFile(name=f"{HOST_KEY_FILE}.pub", text=f"{keys.host_public}\n"),
        SeedFile(name="authorized_keys", text=f"{keys.client_public}\n"),
    )
