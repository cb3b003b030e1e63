"""What the service needs before it is started, and what it would run without."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError, OrchestratorError, StoreError
from orchestrator.core.finding import Finding, fine, warning
from orchestrator.github.api import Api
from orchestrator.github.lookup import Lookup
from orchestrator.github.token import api_url
from orchestrator.preflight import check_operator
from orchestrator.service.queue import probe_database
from orchestrator.service.secrets import read_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.service_settings import Service
    from orchestrator.service.secrets import Secrets
    from orchestrator.wiring import Operator


def database_url(operator: Operator, secrets: Secrets) -> str:
    """Return where the queue is: as the inventory says, or the environment, or in a file."""
    named = operator.inventory.service.database or secrets.database
    # The file is a record like the others: deleted, it takes along only what was still waiting.
    return named or f"sqlite:///{operator.dist / 'service' / 'queue.sqlite'}"


async def check_service(operator: Operator, environment: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return what was found on this machine; nothing is started, and nothing is left behind."""
    settings = operator.inventory.service
    try:
        secrets = read_secrets(settings, environment)
    except ConfigError as error:
        found = [Finding.of("secrets", error)]
    else:
        found = [
            *_secrets(settings, secrets),
            await _database(operator, secrets),
            await _github(settings, secrets, environment),
        ]
    return (*found, *_address(settings), *_key(operator), *await check_operator(operator))


def _secrets(settings: Service, secrets: Secrets) -> list[Finding]:
    found = []
    if secrets.webhook is None:
        found.append(Finding.of("webhook", no_secret()))
    else:
        found.append(fine("webhook", f"deliveries of {settings.repository} are taken"))
    if secrets.action_token is None:
        found.append(fine("actions", "none on the page: there is no action token"))
    else:
        found.append(fine("actions", "with the token, on the page"))
    if settings.notices:
        found.append(fine("notices", f"{len(settings.notices)} are told"))
    else:
        said = "nobody is told of what goes wrong"
        found.append(warning("notices", said, "name somebody in `service.notices`"))
    return found


def _key(operator: Operator) -> list[Finding]:
    try:
        key = operator.known_key()
    except ConfigError:
        # It is told of with all that a release needs.
        return []
    if not key.has_passphrase:
        return []
    error = ConfigError(
        "the signing key has a passphrase, and nobody is there to be asked for it",
        hint="give the service a key without one, in a file that only it may read, or one in an "
        "ssh-agent: docs/keys.md",
    )
    return [Finding.of("passphrase", error)]


def no_secret() -> ConfigError:
    """Return the error of a service that could not tell GitHub from anybody else."""
    return ConfigError(
        "there is no webhook secret, so nobody could be believed",
        hint="make one with `openssl rand -hex 32`, name its file in `service.webhook_secret_file` "
        "or put it into ORCHESTRATOR_WEBHOOK_SECRET, and give GitHub the same",
    )


async def _database(operator: Operator, secrets: Secrets) -> Finding:
    try:
        return fine("queue", await probe_database(database_url(operator, secrets)))
    except ConfigError as error:
        return Finding.of("queue", error)


async def _github(settings: Service, secrets: Secrets, environment: Mapping[str, str]) -> Finding:
    token = secrets.github_token
    if token is None and settings.statuses:
        return Finding.of(
            "github",
            ConfigError(
                "`service.statuses` needs a GitHub token, and there is none",
                hint="name its file in `service.github_token_file`, or put it into GITHUB_TOKEN",
            ),
        )
    try:
        api = Api(repository=settings.repository or "", token=token, url=api_url(environment))
        found = await Lookup(api).releases() or ()
    except OrchestratorError as error:
        return Finding.of("github", StoreError(error.message, hint=error.hint))
    who = "with its token" if token else "by nobody in particular, sixty times an hour"
    return fine("github", f"{settings.repository} has {len(found)} releases, read {who}")


def _address(settings: Service) -> list[Finding]:
    host = settings.listen.rpartition(":")[0].strip("[]")
    if host == "localhost" or ipaddress.ip_address(host).is_loopback:
        return []
    return [
        warning(
            "address",
            f"{settings.listen} is reached from other machines, without TLS",
            "listen on 127.0.0.1 and put Caddy or nginx before it: docs/operating.md",
        )
    ]
