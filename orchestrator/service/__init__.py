"""The way in for a machine: `orchestrator serve`.

server              the process: what runs in it, and its routes
webhook, poller     what GitHub tells, and what it is asked
intake, queue       where orders go; DBOS keeps them
questions, liveness  a database that hangs, coordinators that die
maker               carries out an order
desk, upkeep        what people see and do; what is done by the clock
live, pages         releases in a browser; actions, answers, addresses, sharing, log_text
objects, root       the store over HTTP; sources, compression, directory, listening, headers
notices, channels   who is told, and how; statuses at GitHub
journal, metrics    what is logged and counted; observation: /healthz and /metrics
secrets, readiness, units   what it needs to start
"""
