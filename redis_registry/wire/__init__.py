"""Key names and bytes: what the registry's words look like inside Redis."""
