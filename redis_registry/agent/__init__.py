"""The sidecar: makes any server a registered worker; see docs/how-to/agent.md."""
