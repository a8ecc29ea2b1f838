"""The command line: ``redis-registry``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; says what to install when the extra is missing."""
    try:
        from redis_registry.cli.commands import app  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"redis-registry: {error.name} is not installed; the command line needs an extra: "
            "pip install 'redis-registry[server]'\n"
        )
        sys.exit(2)
    app()
