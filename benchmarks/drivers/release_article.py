"""The orchestrator of the article: a thread for each node, `ssh` and `scp`, then one loop.

python release_article.py JOB.json [SSH_OPTION…]
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_job = json.loads(Path(sys.argv[1]).read_text())
_ssh = ["-F", _job["config"], *sys.argv[2:]]


def build_on_node(node: dict[str, Any]) -> None:
    """Send the source, build, and see whether the program runs."""
    make = ["ssh", *_ssh, node["name"], f"mkdir -p {node['folder']}"]
    subprocess.run(make, check=True)
    copy = ["scp", "-q", *_ssh, _job["source"], f"{node['name']}:{node['folder']}/source.tar.gz"]
    subprocess.run(copy, check=True)
    subprocess.run(["ssh", *_ssh, node["name"], node["build"]], check=True)


def collect_artifacts(node: dict[str, Any]) -> None:
    """Fetch the program and pack it."""
    binary = f"{_job['folder']}/{node['name']}"
    source = f"{node['name']}:{node['folder']}/out/trajectory"
    subprocess.run(["scp", "-q", *_ssh, source, binary], check=True)
    finish = ["sh", _job["finish"], _job["folder"], _job["version"], node["target"], binary]
    subprocess.run(finish, check=True)


with ThreadPoolExecutor(len(_job["nodes"])) as _pool:
    list(_pool.map(build_on_node, _job["nodes"]))
for _node in _job["nodes"]:
    collect_artifacts(_node)
