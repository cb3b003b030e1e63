"""Outside world: keys in files or in an agent → signatures that other tools verify.

signer        the key that an inventory names, wherever its private half is
chosen        the public keys that an inventory names
files         keys in files
agent         keys in an ssh-agent
pair          both signatures, from bare ones
verification  signatures, believed or not
forms         the two forms as text
"""

from orchestrator.core.signature import parse_public_key
from orchestrator.signing.agent import AgentSigner, find_in_agent
from orchestrator.signing.chosen import public_half, read_public_key, rotation_key, trusted_keys
from orchestrator.signing.files import FileSigner, generate_key, inspect_key, load_signer
from orchestrator.signing.signer import KnownKey, know_key, open_signer
from orchestrator.signing.verification import verify, verify_minisig, verify_raw, verify_sshsig

__all__ = [
    "AgentSigner",
    "FileSigner",
    "KnownKey",
    "find_in_agent",
    "generate_key",
    "inspect_key",
    "know_key",
    "load_signer",
    "open_signer",
    "parse_public_key",
    "public_half",
    "read_public_key",
    "rotation_key",
    "trusted_keys",
    "verify",
    "verify_minisig",
    "verify_raw",
    "verify_sshsig",
]
