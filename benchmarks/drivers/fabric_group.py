"""Run a command on the hosts of an ssh_config with fabric's ThreadingGroup.

FABRIC_PYTHON fabric_group.py SSH_CONFIG COMMAND HOST…
"""

import sys

from fabric import Config, ThreadingGroup  # type: ignore[import-not-found]

_config, _command, *_hosts = sys.argv[1:]
_group = ThreadingGroup(
    *_hosts,
    config=Config(runtime_ssh_path=_config),
    connect_kwargs={"look_for_keys": False, "allow_agent": False},
)
for _connection, _result in _group.run(_command, hide=True).items():
    print(f"{_connection.original_host}: {_result.stdout.strip()}")
