"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redis_registry import GuardSettings, OutlierSettings, RegistrySettings, errors
from redis_registry.http.app import _STATUS
from redis_registry.remote import RemoteSettings
from redis_registry.wire import keys
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.tested import TESTED
from tests.explore.worlds import WORLDS
from tests.helpers import KNOWN
from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
_FLOORS = "tests|redis_registry|docs|benchmarks|examples|requirements"
_OWN = rf"(?:{_FLOORS})/[\w./-]*\w"


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


@pytest.mark.parametrize("page", PAGES)
def test_each_link_and_path_leads_somewhere(page: str) -> None:
    text = _read(page)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text)
    paths = re.findall(rf"(?<![\w./-])({_OWN})", text)
    found = [(ROOT / page).parent / link for link in links]
    found += [ROOT / path for path in paths]
    assert [str(path) for path in found if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_each_make_target_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    lines = re.findall(r"(?:^|`)make ([^`\n#]+)", _read(page), re.MULTILINE)
    words = {w for line in lines for w in re.sub(r"'.*?'", "", line).split()}
    assert {w for w in words if "=" not in w} - targets == set()


@pytest.mark.parametrize("page", PAGES)
def test_each_pytest_command_selects_a_test(page: str) -> None:
    path = ""
    for command in re.findall(r"`(?:pytest|…) ([^`-][^`]*|-k [^`]*)`", _read(page)):
        words = command.split()
        path = words[0] if words[0] != "-k" else path
        wanted = words[words.index("-k") + 1] if "-k" in words else ""
        assert any(wanted in name for name in _tests(path)), command


def _tests(path: str) -> list[str]:
    """Names of the tests in a file, or in the files of a directory."""
    place = ROOT / path
    files = [place] if place.is_file() else place.rglob("test_*.py")
    texts = [file.read_text() for file in files]
    return [name for text in texts for name in re.findall(r"def (test_\w+)", text)]


@pytest.mark.parametrize("page", PAGES)
def test_each_program_of_the_tree_has_the_options_that_are_named(page: str) -> None:
    for module, rest in re.findall(
        r"python -m ((?:tests|examples|benchmarks)[\w.]*)([^`\n#]*)", _read(page)
    ):
        place = ROOT / module.replace(".", "/")
        files = [*place.glob("*.py"), place.with_suffix(".py")]
        code = "".join(file.read_text() for file in files if file.exists())
        assert code, module
        options = set(re.findall(r"--[\w-]+", rest)) - {"--help"}
        assert {o for o in options if f'"{o}"' not in code} == set(), module


def test_each_scenario_that_is_named_is_in_the_matrix() -> None:
    known = {scenario.name for scenario in [*SCENARIOS, *TESTED]}
    text = _read("docs/explanation/faults.md")
    table = text.split("<!-- scenarios -->")[1].split("<!-- end")[0]
    named = re.findall(r"^\| \d+ \| P\d \| `([\w-]+)`", table, re.MULTILINE)
    named += re.findall(r"SCENARIO=([\w-]+)", text)
    named += [
        name
        for group in re.findall(
            r"scenarios? (`[^)]*`)", _read("docs/explanation/guarantees.md")
        )
        for name in re.findall(r"`([\w-]+)`", group)
    ]
    assert set(named) - known == set()


def test_the_operator_is_told_what_to_do_about_every_error() -> None:
    page = _read("docs/how-to/operate.md").split("## What an error asks of you")[1]
    told: dict[str, str] = {}
    for cell in re.findall(r"^\| (`[A-Z].+?) \|", page, re.MULTILINE):
        code = "".join(re.findall(r"\((?:HTTP )?(\d+)\)", cell))
        told |= dict.fromkeys(re.findall(r"`(\w+)`", cell), code)
    assert told.keys() == set(errors.__all__) - {"RegistryError"}
    for name, code in told.items():
        kind = getattr(errors, name)
        answered = next((c for k, c in _STATUS if issubclass(kind, k)), 500)
        assert code in ("", str(answered)), name


def test_every_world_that_is_explored_has_its_figures() -> None:
    figures = _read("docs/explanation/exploration.md").split("## Figures")[1]
    assert set(WORLDS) <= set(re.findall(r"`(\w+)`", figures))
