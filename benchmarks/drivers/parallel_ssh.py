"""Run a command on many addresses with parallel-ssh, all at once.

PARALLEL_SSH_PYTHON parallel_ssh.py USER PORT IDENTITY COMMAND ADDRESS…
"""

import sys

from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]

_user, _port, _identity, _command, *_addresses = sys.argv[1:]
_client = ParallelSSHClient(
    _addresses,
    user=_user,
    port=int(_port),
    pkey=_identity,
    pool_size=len(_addresses),
    allow_agent=False,
)
for _output in _client.run_command(_command):
    print(f"{_output.host}: {' '.join(_output.stdout)}")
