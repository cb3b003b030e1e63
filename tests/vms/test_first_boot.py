"""What is left to do when a guest has started for the first time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm import DownloadedImage
from orchestrator.core.vm_first_boot import first_boot_of
from tests.vms.definitions import made_up


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("guest", ["freebsd", "openbsd"])
def test_what_finishes_by_itself_says_so_on_its_serial_line(guest: str, arch: str) -> None:
    first = first_boot_of(made_up(guest, arch))
    assert (first.says_ready, first.makes_own_host_key, first.script) == (True, False, None)


def test_netbsd_on_arm64_is_finished_over_its_first_connection() -> None:
    first = first_boot_of(made_up("netbsd", "arm64"))
    assert first.makes_own_host_key
    assert not first.says_ready
    assert "sh /mnt/provision.sh" in str(first.script)


def test_debian_has_everything_already() -> None:
    first = first_boot_of(made_up("debian", "riscv64"))
    assert (first.says_ready, first.makes_own_host_key, first.script) == (False, False, None)


def test_what_nothing_can_install_is_a_persons_work() -> None:
    medium = DownloadedImage(url="https://example.org/a.iso", installer=True)
    for vm in (made_up("netbsd", "amd64"), replace(made_up("netbsd", "arm64"), image=medium)):
        with pytest.raises(ConfigError, match="nothing answers the questions") as failure:
            first_boot_of(vm)
        assert "by hand" in str(failure.value.hint)
