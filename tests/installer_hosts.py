"""What the tools of other systems print: the hosts and the hash tools that tests simulate."""

from __future__ import annotations

from typing import Final

from tests.installer_site import GNU, MUSL, uname

DARWIN: Final = {"sw_vers": "echo 14.5", "arch": "exit 1"}


def on_linux(machine: str, **tools: str) -> dict[str, str]:
    return {"uname": uname("Linux", machine, release="6.1.0", os="GNU/Linux"), **tools}


def on_mac(machine: str, **tools: str) -> dict[str, str]:
    processor = {"arm64": "arm", "x86_64": "i386"}[machine]
    return {"uname": uname("Darwin", machine, processor=processor), **DARWIN, **tools}


def on_bsd(answers: str, **tools: str) -> dict[str, str]:
    system, machine, processor, release = answers.split()
    return {"uname": uname(system, machine, processor=processor, release=release), **tools}


NO_GLIBC: Final = {"getconf": "echo 'getconf: unknown variable' >&2; exit 1"}
MUSL_LDD: Final = "{ echo 'musl libc (x86_64)'; echo 'Version 1.2.3'; } >&2; exit 1"
GLIBC_LDD: Final = "echo 'ldd (GNU libc) 2.17'; echo 'Copyright'"

HOSTS: Final = {
    "Linux x86_64": (on_linux("x86_64"), f"{GNU} {MUSL}", "linux=6.1.0 glibc=2.36"),
    "Linux x86_64, only ldd": (
        on_linux("x86_64", **NO_GLIBC, ldd=GLIBC_LDD),
        f"{GNU} {MUSL}",
        "linux=6.1.0 glibc=2.17",
    ),
    "Linux x86_64, musl": (on_linux("x86_64", **NO_GLIBC, ldd=MUSL_LDD), MUSL, "linux=6.1.0"),
    "Linux x86_64, 32-bit userland": (on_linux("x86_64", od="echo ' 01'"), None, ""),
    "Linux aarch64": (
        on_linux("aarch64"),
        "aarch64-unknown-linux-gnu aarch64-unknown-linux-musl",
        "linux=6.1.0 glibc=2.36",
    ),
    "Linux aarch64, 32-bit userland": (
        on_linux("aarch64", od="echo ' 01'"),
        "armv7-unknown-linux-gnueabihf armv7-unknown-linux-musleabihf",
        "linux=6.1.0 glibc=2.36",
    ),
    "Linux armv7": (
        on_linux("armv7l", od="echo ' 01'"),
        "armv7-unknown-linux-gnueabihf armv7-unknown-linux-musleabihf",
        "linux=6.1.0 glibc=2.36",
    ),
    "Linux armv7, musl": (
        on_linux("armv7l", **NO_GLIBC, ldd=MUSL_LDD),
        "armv7-unknown-linux-musleabihf",
        "linux=6.1.0",
    ),
    "Linux riscv64": (
        on_linux("riscv64"),
        "riscv64gc-unknown-linux-gnu riscv64gc-unknown-linux-musl",
        "linux=6.1.0 glibc=2.36",
    ),
    "Linux armv6": (on_linux("armv6l"), None, ""),
    "Linux i686": (on_linux("i686"), None, ""),
    "Linux mips64": (on_linux("mips64"), None, ""),
    "Android": (
        {"uname": uname("Linux", "aarch64", release="5.10.1", os="Android"), **NO_GLIBC},
        "aarch64-linux-android aarch64-unknown-linux-musl",
        "linux=5.10.1",
    ),
    "WSL": (
        {"uname": uname("Linux", "x86_64", release="5.15.1-microsoft-standard-WSL2")},
        f"{GNU} {MUSL}",
        "linux=5.15.1 glibc=2.36",
    ),
    "Mac arm64": (on_mac("arm64", sysctl="echo 1"), "aarch64-apple-darwin", "macos=14.5"),
    "Mac arm64 with Rosetta": (
        on_mac("arm64", sysctl="echo 1", arch="exit 0"),
        "aarch64-apple-darwin x86_64-apple-darwin",
        "macos=14.5",
    ),
    "Mac arm64, in a Rosetta shell": (
        on_mac("x86_64", sysctl="echo 1"),
        "aarch64-apple-darwin x86_64-apple-darwin",
        "macos=14.5",
    ),
    "Mac x86_64, key absent": (
        on_mac("x86_64", sysctl="echo 'unknown oid' >&2; exit 1"),
        "x86_64-apple-darwin",
        "macos=14.5",
    ),
    "Mac x86_64, key 0": (on_mac("x86_64", sysctl="echo 0"), "x86_64-apple-darwin", "macos=14.5"),
    "FreeBSD amd64": (
        on_bsd("FreeBSD amd64 amd64 15.0", **{"freebsd-version": "echo 14.3-RELEASE-p5"}),
        "x86_64-unknown-freebsd",
        "freebsd=14.3",
    ),
    "FreeBSD arm64": (
        on_bsd("FreeBSD arm64 aarch64 14.3-RELEASE"),
        "aarch64-unknown-freebsd",
        "freebsd=14.3",
    ),
    "FreeBSD armv7": (
        on_bsd("FreeBSD arm armv7 14.3-RELEASE"),
        "armv7-unknown-freebsd",
        "freebsd=14.3",
    ),
    "FreeBSD riscv64": (
        on_bsd("FreeBSD riscv riscv64 14.3-RELEASE"),
        "riscv64gc-unknown-freebsd",
        "freebsd=14.3",
    ),
    "FreeBSD powerpc": (on_bsd("FreeBSD powerpc powerpc64le 14.3"), None, ""),
    "OpenBSD amd64": (
        on_bsd("OpenBSD amd64 amd64 7.8"),
        "x86_64-unknown-openbsd",
        "openbsd=7.8",
    ),
    "OpenBSD arm64": (
        on_bsd("OpenBSD arm64 aarch64 7.8"),
        "aarch64-unknown-openbsd",
        "openbsd=7.8",
    ),
    "NetBSD amd64": (
        on_bsd("NetBSD amd64 x86_64 10.1_STABLE"),
        "x86_64-unknown-netbsd",
        "netbsd=10.1",
    ),
    "NetBSD arm64": (
        on_bsd("NetBSD evbarm aarch64 10.1"),
        "aarch64-unknown-netbsd",
        "netbsd=10.1",
    ),
    "NetBSD 32-bit arm": (on_bsd("NetBSD evbarm earmv7hf 10.1"), None, ""),
    "DragonFly": (
        on_bsd("DragonFly x86_64 x86_64 6.4-RELEASE"),
        "x86_64-unknown-dragonfly",
        "dragonfly=6.4",
    ),
    "illumos": (
        {"uname": uname("SunOS", "i86pc", processor="i386", release="5.11", os="illumos")},
        "x86_64-unknown-illumos",
        "",
    ),
    "Solaris": ({"uname": uname("SunOS", "i86pc", os="Solaris")}, None, ""),
    "Windows": ({"uname": uname("MINGW64_NT-10.0", "x86_64", os="Msys")}, None, ""),
    "Haiku": ({"uname": uname("Haiku", "x86_64")}, None, ""),
}

# The tool, the arguments that it must get, and how it prints the digits.
HASH_SHIMS: Final = {
    "sha256 as on FreeBSD": ("sha256", "", "%s"),
    "cksum as on NetBSD": ("cksum", "-a SHA256", "%s"),
    "cksum as on OpenBSD": ("cksum", "-a sha256", "SHA256 (-) = %s"),
    "digest as on illumos": ("digest", "-a sha256", "%s"),
    "openssl 3": ("openssl", "dgst -sha256", "SHA2-256(stdin)= %s"),
    "LibreSSL": ("openssl", "dgst -sha256", "(stdin)= %s"),
}
