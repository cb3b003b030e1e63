"""The systemd units of the service: itself, and what looks after the store every day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.unit_hardening import HARDENING

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE: Final = "orchestrator.service"
UPKEEP: Final = "orchestrator-upkeep.service"
TIMER: Final = "orchestrator-upkeep.timer"
DEFAULT_USER: Final = "orchestrator"
DEFAULT_HOME: Final = "/var/lib/orchestrator"

_HOMES: Final = ("/home/", "/root/", "/run/user/")
_STATE: Final = "/var/lib/"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

_HARDENED: Final = """\
# It may write below its home and the inventory's folder only, and gain nothing.
ReadWritePaths={writable}
{state}NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={homes}
PrivateTmp=yes
{hardening}AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
UMask=0077
{devices}"""

_SERVICE: Final = """\
# The service of orchestrator: made by `orchestrator serve --units`.
# It lies in /etc/systemd/system/. What is changed here is kept in `systemctl edit {service}`.
[Unit]
Description=orchestrator: releases from webhooks, status page, store
After=network-online.target time-sync.target
Wants=network-online.target
# It waits for its database as long as that takes, instead of giving up after five tries.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
# With what rustup has installed for this user: cargo collects the dependencies of a source.
Environment={path}
ExecStart={program} serve --inventory {inventory}
# At the end it answers what it was asked, and leaves what runs on the nodes to the next start.
KillSignal=SIGTERM
TimeoutStopSec=60
# A build on this machine goes on, too: the next start finds it.
KillMode=process
Restart=on-failure
RestartSec=15

# Secrets. Each variable that the service reads may be a credential of the same name: a file that
# root owns (chmod 600), and that only this service gets to see. One line for each that there is:
#   LoadCredential=ORCHESTRATOR_WEBHOOK_SECRET:/etc/orchestrator/webhook-secret
#   LoadCredential=ORCHESTRATOR_ACTION_TOKEN:/etc/orchestrator/action-token
#   LoadCredential=ORCHESTRATOR_DATABASE:/etc/orchestrator/database
#   LoadCredential=GITHUB_TOKEN:/etc/orchestrator/github-token
# The files that the inventory names (`webhook_secret_file` and others) need none of this. In an
# environment file secrets are seen by every program that the service starts:
#   EnvironmentFile=/etc/orchestrator/environment

{hardened}
[Install]
WantedBy=multi-user.target
"""

_UPKEEP: Final = """\
# Signs the indexes again before they expire, and holds the store against them.
# Made by `orchestrator serve --units`; {timer} starts it.
[Unit]
Description=orchestrator: renew the indexes, check the store
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
User={user}
WorkingDirectory={folder}
Environment={path}
# In this order: a store that is damaged must not keep its index from being signed.
ExecStart={program} renew --inventory {inventory}
ExecStart={program} fsck --inventory {inventory}
TimeoutStartSec=1h

{hardened}"""

_TIMER: Final = """\
# Starts {upkeep} every day, at any time of it; what was missed while this machine was off
# is done when it is on again.
[Unit]
Description=orchestrator: daily upkeep of the store

[Timer]
OnCalendar=daily
RandomizedDelaySec=4h
Persistent=true

[Install]
WantedBy=timers.target
"""

_KVM: Final = """\
# Its guests run here: the only device.
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
SupplementaryGroups=kvm
"""
_NO_DEVICES: Final = "PrivateDevices=yes\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it is installed: absolute paths of the program, the inventory, and the user's home."""

    program: str
    inventory: str
    user: str = DEFAULT_USER
    home: str = DEFAULT_HOME
    # Other folders that it writes to: that of the store.
    writable: tuple[str, ...] = ()
    # Whether virtual machines of nodes run on this machine.
    has_guests: bool = False

    @property
    def folder(self) -> str:
        """The folder of the inventory."""
        return self.inventory.rpartition("/")[0] or "/"


def service_units(place: Place) -> Mapping[str, str]:
    """Return the text of each unit by its file name; ConfigError for what none can express."""
    values = {
        "service": SERVICE,
        "upkeep": UPKEEP,
        "timer": TIMER,
        "user": _plain(place.user),
        "folder": _plain(place.folder),
        "path": f'"PATH={_plain(place.home)}/.cargo/bin:{_PATH}"',
        "program": f'"{_plain(place.program)}"',
        # Of a command line, only the arguments have variables.
        "inventory": f'"{_plain(place.inventory).replace("$", "$$")}"',
    }
    return {
        SERVICE: _SERVICE.format(**values, hardened=_hardened(place, devices=_devices(place))),
        UPKEEP: _UPKEEP.format(**values, hardened=_hardened(place, devices=_NO_DEVICES)),
        TIMER: _TIMER.format(**values),
    }


def _devices(place: Place) -> str:
    return _KVM if place.has_guests else _NO_DEVICES


def _hardened(place: Place, *, devices: str) -> str:
    folders = dict.fromkeys((place.home, place.folder, *place.writable))
    is_at_home = any(f"{folder}/".startswith(_HOMES) for folder in (*folders, place.program))
    # A home of its own below /var/lib is made by systemd, for that user.
    name = place.home.removeprefix(_STATE)
    is_state = place.home.startswith(_STATE) and "/" not in name
    return _HARDENED.format(
        hardening=HARDENING,
        # The part before the last slash of what is not there yet is no mistake.
        writable=" ".join(f'"-{_plain(folder)}"' for folder in folders),
        state=f"StateDirectory={_plain(name)}\nStateDirectoryMode=0700\n" if is_state else "",
        # What is below a home can only be opened if that home can be looked into.
        homes="read-only" if is_at_home else "yes",
        devices=devices,
    )


# What systemd does not take in a program's name, or would take for something else.
_SPECIAL: Final = frozenset("\\\"'*?[")


def _plain(text: str) -> str:
    if not text.isprintable() or set(text) & _SPECIAL:
        raise ConfigError(
            f"a systemd unit cannot name {text[:80]!r}",
            hint="use a path without control characters, quotes, backslashes, and * ? [",
        )
    return text.replace("%", "%%")
