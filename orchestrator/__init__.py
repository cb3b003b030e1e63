"""Build a Rust program natively on machines you own, and publish it so that anyone can install it.

cli, options        the way in for a person: argv
commands            each command
service             the way in for a machine
fsck                whether a store holds what its indexes say
offline             a part of a store for machines without a network
console, listing    the ways out: events as a live table, data as text
release             one release for whoever asks: looked at, planned, connected, made
channels            an operator's indexes, and versions taken back on all of them
wiring              the real world of an operator, opened when it is needed
preflight           whether a release can start
coordinator         the story: one release, from plan to installer
verification        whether what is published is what was signed
delivery            one node's part: from its task to a checked artifact
evidence            how an artifact was made, for its provenance
inspection          what binaries are, that they run, and their archive
benchmark           how long clean builds take on each node
turns               whose turn it is to build on machines that share a CPU
reach               which nodes answer, and how long one is waited for
publication         when each target is published
attachment          its archives as assets of a GitHub release
jobs                what the jobs of earlier runs are doing
world               what a release touches, as seams
workspace           the operator's files, as values
timings             how builds went on the nodes
source              where the source comes from, as one bundle with a digest
signing             keys in files or in ssh-agent, as signatures
nodes               the machines that build
site                what follows from an index: installer, page, summaries
stores              the files that are published
github              releases, their assets, tags and commit statuses at GitHub
parts               files that are whole under their names
private             files that hold a secret
web                 HTTP, as a client
core                values and decisions, without I/O
"""

__version__ = "0.1.0"
