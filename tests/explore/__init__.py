"""Every interleaving of script calls in small worlds, with the real Lua; see docs/explanation/exploration.md."""
