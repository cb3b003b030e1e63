"""A release with fabric, a thread for each node: FABRIC_PYTHON release_fabric.py JOB.json."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fabric import Config, Connection  # type: ignore[import-not-found]

_job = json.loads(Path(sys.argv[1]).read_text())


def _release(node: dict[str, Any]) -> None:
    connection = Connection(
        node["name"],
        config=Config(runtime_ssh_path=_job["config"]),
        connect_kwargs={"look_for_keys": False, "allow_agent": False},
    )
    binary = f"{_job['folder']}/{node['name']}"
    with connection:
        connection.run(f"mkdir -p {node['folder']}", hide=True)
        connection.put(_job["source"], f"{node['folder']}/source.tar.gz")
        connection.run(node["build"], hide=True)
        connection.get(f"{node['folder']}/out/trajectory", binary)
    words = [_job["folder"], _job["version"], node["target"], binary]
    subprocess.run(["sh", _job["finish"], *words], check=True)


with ThreadPoolExecutor(len(_job["nodes"])) as _pool:
    list(_pool.map(_release, _job["nodes"]))
