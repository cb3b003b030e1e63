"""Certificates for servers on loopback, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One that vouches for itself, and its private key."""

    certificate: Path
    key: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """Return a certificate for hosts of these names."""
    made = Certificate(certificate=folder / "certificate.pem", key=folder / "key.pem")
    alternatives = ",".join(f"DNS:{name}" for name in names)
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN={names[0]} -addext subjectAltName={alternatives}"
    )
    command = [*words.split(), "-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made
