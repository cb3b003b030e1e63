"""The way in for a machine: `orchestrator serve`."""
