"""Build a Rust program natively on machines you own, and publish it so that anyone can install it.

cli, console      the ways in and out for a person
service           the way in for a machine
coordinator       the story: one release, from plan to installer
workspace         the operator's files, as values
source            where the source comes from, as one bundle with a digest
signing           keys, as signatures
nodes             the machines that build
stores            the files that are published
core              values and decisions, without I/O
"""

__version__ = "0.1.0"
