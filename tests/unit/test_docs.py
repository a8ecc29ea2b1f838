"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redis_registry import GuardSettings, OutlierSettings, RegistrySettings
from redis_registry.remote import RemoteSettings
from redis_registry.wire import keys
from tests.helpers import KNOWN
from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]


def _read(path: str) -> str:
    return (ROOT / path).read_text()


def test_the_table_of_promises_is_the_catalogue_of_mutants() -> None:
    rows = re.findall(
        r"^\| (\w\d) \| (.+?) \| `(tests/.+?)` \|$",
        _read("docs/explanation/promises.md"),
        re.MULTILINE,
    )
    assert rows == [(m.promise, m.what, m.test) for m in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.promise} {m.what}")
def test_each_mutant_still_fits_the_code_and_its_test_exists(mutant: Mutant) -> None:
    path, _, name = mutant.test.partition("::")
    assert f"def {name}(" in _read(path)
    for edit in mutant.edits:
        assert edit.old in _read(edit.path)


def test_every_promise_has_a_mutant() -> None:
    promised = set(
        re.findall(r"\*\*([LWRS]\d) ", _read("docs/explanation/promises.md"))
    )
    assert promised == {mutant.promise for mutant in MUTANTS}


def test_the_settings_page_names_every_setting_and_its_default() -> None:
    page = _read("docs/reference/settings.md")
    for kind in (RegistrySettings, GuardSettings, OutlierSettings, RemoteSettings):
        prefix = kind.model_config.get("env_prefix", "")
        for name, field in kind.model_fields.items():
            if name not in ("guard", "outliers"):
                variable = f"{prefix}{name.upper()}"
                default = "required" if field.is_required() else field.default
                assert f"| `{name}` | `{variable}` | `{default}` |" in page


def test_the_keyspace_table_names_every_key() -> None:
    for name in KNOWN:
        assert f"``{name}``" in (keys.__doc__ or "")


def test_the_access_rights_are_those_that_the_test_grants() -> None:
    from tests.promises.test_faults import COMMANDS

    page = _read("docs/how-to/operate.md")
    block = re.findall(r"ACL SETUSER.*?```", page, re.DOTALL)[0]
    granted = set(re.findall(r"\+[\w|]+", block))
    assert granted == set(COMMANDS)
