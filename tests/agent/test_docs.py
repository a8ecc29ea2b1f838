"""The agent's page says what the agent does."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from redis_registry.agent import checks, child
from redis_registry.cli.agent import EXIT_CODES
from redis_registry.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/agent.md").read_text()
FOUND = {"--host", "--health", "--model", "--port"}


def test_the_page_names_every_option_and_its_default() -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    options = {
        parameter.opts[0]: parameter.default
        for parameter in commands["agent"].params
        if parameter.param_type_name == "option" and parameter.name != "help"
    }
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| (.*?) ?\|", PAGE, re.MULTILINE))
    assert set(rows) == set(options)
    for name, default in options.items():
        if name not in FOUND and default is not None:
            assert rows[name] == f"`{default}`", name


def test_the_page_and_the_help_name_every_exit_code() -> None:
    told = set(re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)) - {"0", "1"}
    helped = set(re.findall(r"\b(\d+) [a-z]", EXIT_CODES))
    codes = {
        *(checks.NO_HOST, checks.NOT_HEALTHY, checks.PORT_TAKEN, checks.SUPERSEDED),
        *(child.NOT_EXECUTABLE, child.NO_COMMAND),
    }
    assert told == {str(code) for code in codes} | {"2"}
    assert told == helped - {"128"}
