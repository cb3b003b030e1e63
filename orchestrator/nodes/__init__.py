"""The machines that build."""
