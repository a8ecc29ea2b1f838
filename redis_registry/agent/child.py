"""The server's process: started, watched, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Sequence

from redis_registry.embedded import die_with
from redis_registry.errors import AgentError

__all__ = ["NOT_EXECUTABLE", "NO_COMMAND", "Child", "find_command"]

NO_COMMAND = 127
NOT_EXECUTABLE = 126
"""As shells have it."""

_log = logging.getLogger(__name__)


def find_command(name: str) -> str:
    """Where a command is.

    Raises:
        AgentError: It isn't, or can't be run.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    if os.path.isfile(name):  # noqa: PTH113  a name, not yet a path
        msg = f"{name} is not executable: chmod +x it, or name its interpreter"
        raise AgentError(msg, NOT_EXECUTABLE)
    msg = f"no such command: {name}; give its path, or look at PATH"
    raise AgentError(msg, NO_COMMAND)


class Child:
    """A running command, in a process group of its own.

    A Ctrl-C in the terminal is thus for the agent, which drains first. On Linux the kernel ends
    the command when the agent is killed.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._group_ended = False

    @classmethod
    async def start(cls, command: Sequence[str]) -> Child:
        """Start a command; it has the agent's input and output.

        Raises:
            AgentError: It can't be run.
        """
        path = find_command(command[0])
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                executable=path,
                process_group=0,
                preexec_fn=die_with(os.getpid()),
            )
        except OSError as error:
            msg = f"can't run {path}: {error.strerror}"
            raise AgentError(msg, NOT_EXECUTABLE) from error
        _log.info("child started", extra={"pid": process.pid, "command": command[0]})
        return cls(process)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def exit_code(self) -> int:
        """As a shell tells it: 128 + n for one that was ended by signal n."""
        code = self._process.returncode or 0
        return code if code >= 0 else 128 - code

    async def ended(self) -> None:
        """Wait until it ends by itself."""
        await self._process.wait()

    async def stop(self, secs: float) -> None:
        """Ask it to end; after ``secs`` its whole group is killed."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), secs)
            except TimeoutError:
                _log.warning(
                    "child did not end, killing it", extra={"waited_secs": secs}
                )
        self.kill()
        await self._process.wait()
        _log.info("child ended", extra={"exit_code": self.exit_code})

    def kill(self) -> None:
        """End it, and whatever it left behind in its group, at once."""
        if self._group_ended:  # its number may be another's by now
            return
        self._group_ended = not self.running
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
