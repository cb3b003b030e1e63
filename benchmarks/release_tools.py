"""The peers that make the same release, each as one whole program."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import peers
from benchmarks.fan_out_tools import ansible_environment, end_masters, multiplexed
from benchmarks.measuring import RunFailedError, run_measured
from benchmarks.systems import KINDS
from benchmarks.works import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measuring import Usage
    from benchmarks.works import Works

_DRIVERS: Final = Path(__file__).parent / "drivers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One release of a peer: its folder and what its driver reads."""

    works: Works
    version: str
    folder: Path
    data: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The file that the drivers read."""
        return str(self.folder / "job.json")


def new_job(works: Works) -> Job:
    """Make the next version, and everything that a peer's release of it needs."""
    version = works.next_version()
    folder = works.folder / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
    )
    source = folder / "source.tar.gz"
    archive = ["git", "archive", "--format=tar.gz", "-o", str(source), f"v{version}"]
    subprocess.run(archive, cwd=works.repository, check=True)
    nodes = []
    for node, kind in zip(works.fleet.nodes, KINDS, strict=True):
        place = node.folder / "peer"
        shutil.rmtree(place, ignore_errors=True)
        # What pyinfra and parallel-ssh do about folders differs, and is no part of it.
        place.mkdir()
        program = node.folder / "programs" / f"{PROJECT}-{version}"
        build = (
            f"set -e; cd {place}; tar xzf source.tar.gz; sleep {works.seconds_of(node):g}; "
            f"mkdir out; cp {program} out/{PROJECT}; out/{PROJECT} --version"
        )
        (folder / f"{node.name}.sh").write_text(f"{build}\n")
        nodes.append(
            {
                "name": node.name,
                "address": node.address,
                "port": node.port,
                "target": kind.target,
                "folder": str(place),
                "build": build,
            }
        )
    data = {
        "config": str(works.fleet.config),
        "user": works.fleet.user,
        "identity": str(works.fleet.identity),
        "source": str(source),
        "folder": str(folder),
        "version": version,
        "finish": str(_DRIVERS / "finish.sh"),
        "nodes": nodes,
    }
    (folder / "job.json").write_text(json.dumps(data))
    return Job(works=works, version=version, folder=folder, data=data)


def require_release(job: Job) -> None:
    """Raise RunFailedError unless the archive of every target holds the node's program."""
    for node, kind in zip(job.works.fleet.nodes, KINDS, strict=True):
        name = f"{PROJECT}-{job.version}-{kind.target}"
        place = job.folder / "out" / "releases" / job.version / kind.target
        program = (node.folder / "programs" / f"{PROJECT}-{job.version}").read_bytes()
        require_archive(place / f"{name}.tar.gz", f"{name}/{PROJECT}", program)
        if not (place / f"{name}.tar.gz.sig").exists():
            raise RunFailedError(f"{name} is not signed")


def require_archive(archive: Path, member: str, program: bytes) -> None:
    """Raise RunFailedError unless the archive and its checksum hold that program."""
    data = archive.read_bytes()
    said = archive.with_name(f"{archive.name}.sha256").read_text().split()[0]
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        held = file.read() if file else b""
    if held != program or said != hashlib.sha256(data).hexdigest():
        raise RunFailedError(f"{archive.name} is not what its node has built")


def peers_of(works: Works) -> dict[str, Callable[[], Usage]]:
    """Return every peer by its name."""
    return {
        "the article's script": lambda: _released(works, _article),
        "the article's script, warm connections": lambda: _released(works, _article_warm),
        "xargs, ssh, scp": lambda: _released(works, _xargs),
        "ansible": lambda: _released(works, _ansible),
        "pyinfra": lambda: _released(works, _pyinfra),
        "parallel-ssh": lambda: _released(works, _parallel_ssh),
        "fabric": lambda: _released(works, _fabric),
    }


def _released(works: Works, release: Callable[[Job], Usage]) -> Usage:
    job = new_job(works)
    usage = release(job)
    require_release(job)
    return usage


def _article(job: Job, *options: str) -> Usage:
    driver = str(_DRIVERS / "release_article.py")
    return run_measured([sys.executable, driver, job.file, *options])


def _article_warm(job: Job) -> Usage:
    with multiplexed(job.works.fleet) as (_, path):
        return _article(job, "-o", f"ControlPath={path}")


def _xargs(job: Job) -> Usage:
    words = [
        f"{node['name']} {node['target']} {node['folder']} {job.folder}/{node['name']}.sh\n"
        for node in job.data["nodes"]
    ]
    (job.folder / "words").write_text("".join(words))
    every = ["xargs", "-a", str(job.folder / "words"), "-P", str(len(words)), "-L", "1"]
    shared = [job.data["config"], str(job.folder), job.data["source"], job.version]
    return run_measured([*every, "sh", str(_DRIVERS / "release_node.sh"), *shared])


def _ansible(job: Job) -> Usage:
    inventory = job.folder / "inventory.ini"
    lines = [
        f"{node['name']} folder={node['folder']} target={node['target']} "
        f"binary={job.folder}/{node['name']} build='{node['build']}'\n"
        for node in job.data["nodes"]
    ]
    inventory.write_text("".join(lines))
    shared = {
        "source": job.data["source"],
        "finish": job.data["finish"],
        "job": str(job.folder),
        "version": job.version,
    }
    playbook = [str(peers.program("ansible-playbook")), "-i", str(inventory)]
    usage = run_measured(
        [*playbook, "-e", json.dumps(shared), str(_DRIVERS / "release_ansible.yaml")],
        env=ansible_environment(job.works.fleet, pipelining=True),
    )
    end_masters(job.works.fleet)
    return usage


def _pyinfra(job: Job) -> Usage:
    shared = {
        "ssh_config_file": job.data["config"],
        "ssh_known_hosts_file": str(job.works.fleet.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_look_for_keys": False,
        "ssh_allow_agent": False,
        "source": job.data["source"],
    }
    hosts = [
        (
            node["name"],
            {
                **shared,
                "folder": node["folder"],
                "build": node["build"],
                "binary": f"{job.folder}/{node['name']}",
            },
        )
        for node in job.data["nodes"]
    ]
    inventory = job.folder / "nodes.py"
    inventory.write_text(f"nodes = {hosts!r}\n")
    finish = [
        f"sh {job.data['finish']} {job.folder} {job.version} {node['target']} "
        f"{job.folder}/{node['name']}"
        for node in job.data["nodes"]
    ]
    deploy = f"{peers.program('pyinfra')} -y {inventory} {_DRIVERS}/release_pyinfra.py"
    return run_measured(["sh", "-c", " && ".join((deploy, *finish))], cwd=job.folder)


def _parallel_ssh(job: Job) -> Usage:
    driver = str(_DRIVERS / "release_parallel_ssh.py")
    return run_measured([str(peers.python()), driver, job.file], env=dict(os.environ))


def _fabric(job: Job) -> Usage:
    return run_measured([str(peers.python()), str(_DRIVERS / "release_fabric.py"), job.file])
