"""The part of the download page that says how to verify an archive by hand."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.signature import (
    artifact_namespace,
    index_namespace,
    installer_namespace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.core.installer import InstallerValues


def render_commands(text: str) -> str:
    """Return a block of commands; a line that is too long never breaks inside of an option."""
    return f"<pre><code>{_OPTION.sub(_UNBROKEN, escape(text))}</code></pre>"


_OPTION: Final = re.compile(r"(?<![^ \n])(?:-\S+|\| sh)")
_UNBROKEN: Final = r"<span>\g<0></span>"


class _Step(NamedTuple):
    title: str
    note: str
    commands: str


def render_verification(values: InstallerValues, file_name: str | None) -> str:
    """Return the commands that check one archive with what lies beside it, for every key.

    `file_name` is an archive to take as the example, None if there is none yet.
    """
    steps = _steps(values, file_name or f"{values.project}.tar.gz")
    return "\n".join(map(_section, steps))


def _section(step: _Step) -> str:
    note = f"<p>{escape(step.note)}</p>\n" if step.note else ""
    return f"<h3>{escape(step.title)}</h3>\n{note}{render_commands(step.commands)}"


def _steps(values: InstallerValues, file_name: str) -> Iterator[_Step]:
    yield _Step(
        title="First, name the archive",
        note="The installer does all of this by itself. By hand, download an archive and what is "
        "listed beside it into one folder, and choose any of the ways below.",
        commands=f"file={file_name}",
    )
    yield _Step(
        title="With a checksum",
        note="It finds damage; only a signature tells who made the file. One of these is on your "
        "system: the first on Linux and FreeBSD 14, the second on macOS, the third on OpenBSD.",
        # No comments: zsh, which macOS has, takes none at its prompt.
        commands='sha256sum -c "$file.sha256"\n'
        'shasum -a 256 -c "$file.sha256"\n'
        'sha256 -c "$file.sha256"',
    )
    if values.ssh_keys:
        note = _trust(values.ssh_keys)
        yield _Step(title="With OpenSSH 8.1 or newer", note=note, commands=_ssh(values))
        yield _Step(
            title="The installer itself, with OpenSSH",
            note="With the same file of keys, when install.sh and install.sh.sig are downloaded. "
            "Right after a release one of them may be new and the other one old: wait a minute.",
            commands=_ssh_installer(values.project),
        )
    if values.minisign_keys:
        note = _any_of(values.minisign_keys)
        commands = "\n".join(_minisign(values.minisign_keys))
        yield _Step(title="With minisign", note=note, commands=commands)
        commands = "\n".join(_signify(values.project, values.minisign_keys))
        yield _Step(title="With signify, which OpenBSD has", note=note, commands=commands)


def _trust(keys: Sequence[str]) -> str:
    which = "the key" if len(keys) == 1 else "the keys"
    return (
        f"These are {which} that install.sh has in it. Compare with where you trust the project, "
        "such as its source repository: whoever could change the archives here could change this "
        "page, too."
    )


def _any_of(keys: Sequence[str]) -> str:
    return "Each of these keys may have signed it: one command must succeed." if keys[1:] else ""


def _ssh(values: InstallerValues) -> str:
    project = values.project
    made_for = (index_namespace, artifact_namespace, installer_namespace)
    namespaces = ",".join(namespace(project) for namespace in made_for)
    lines = "".join(f'{project} namespaces="{namespaces}" {key}\n' for key in values.ssh_keys)
    return (
        f"cat > allowed_signers <<'END'\n{lines}END\n"
        f"ssh-keygen -Y verify -f allowed_signers -I {project} -n {artifact_namespace(project)} "
        '-s "$file.sshsig" < "$file"'
    )


def _ssh_installer(project: str) -> str:
    namespace = installer_namespace(project)
    return (
        f"ssh-keygen -Y verify -f allowed_signers -I {project} -n {namespace} "
        "-s install.sh.sig < install.sh"
    )


def _minisign(keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        yield f'minisign -V -P {key} -x "$file.minisig" -m "$file"'


def _signify(project: str, keys: Sequence[str]) -> Iterator[str]:
    for number, key in enumerate(keys, start=1):
        public = f"{project}.pub" if len(keys) == 1 else f"{project}-{number}.pub"
        yield f"printf 'untrusted comment: {project}\\n{key}\\n' > {public}"
        yield f'signify -V -p {public} -x "$file.minisig" -m "$file"'
