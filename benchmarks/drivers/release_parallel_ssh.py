"""A release with parallel-ssh: PARALLEL_SSH_PYTHON release_parallel_ssh.py JOB.json."""

import json
import subprocess
import sys
from pathlib import Path

from gevent import joinall  # type: ignore[import-untyped]
from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]

_job = json.loads(Path(sys.argv[1]).read_text())
_nodes = _job["nodes"]
_client = ParallelSSHClient(
    [node["address"] for node in _nodes],
    user=_job["user"],
    port=_nodes[0]["port"],
    pkey=_job["identity"],
    pool_size=len(_nodes),
    allow_agent=False,
)
_places = [{"place": f"{node['folder']}/source.tar.gz"} for node in _nodes]
_sources = [{"local_file": _job["source"], "remote_file": place["place"]} for place in _places]
joinall(
    _client.copy_file("%(local_file)s", "%(remote_file)s", copy_args=_sources), raise_error=True
)
_outputs = _client.run_command("%s", host_args=tuple(node["build"] for node in _nodes))
for _output in _outputs:
    list(_output.stdout)
    if _output.exit_code != 0:
        raise SystemExit(f"{_output.host}: {list(_output.stderr)}")
_back = [
    {
        "remote_file": f"{node['folder']}/out/trajectory",
        "local_file": f"{_job['folder']}/{node['name']}",
    }
    for node in _nodes
]
joinall(
    _client.copy_remote_file("%(remote_file)s", "%(local_file)s", copy_args=_back, encoding="utf8"),
    raise_error=True,
)
for _node in _nodes:
    _own = f"{_job['folder']}/{_node['name']}"
    _words = [_job["folder"], _job["version"], _node["target"], _own]
    subprocess.run(["sh", _job["finish"], *_words], check=True)
