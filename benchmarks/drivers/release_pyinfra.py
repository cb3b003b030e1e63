"""A release as a deploy of pyinfra, whose inventory brings the data."""

from pyinfra import host  # type: ignore[import-not-found]
from pyinfra.operations import files, server  # type: ignore[import-not-found]

files.put(src=host.data.source, dest=f"{host.data.folder}/source.tar.gz", create_remote_dir=True)
server.shell(commands=[host.data.build])
files.get(src=f"{host.data.folder}/out/trajectory", dest=host.data.binary)
