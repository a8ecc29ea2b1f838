#!/usr/bin/env bash
# DB-GPT's own registry tests, client and worker against this registry, in a venv of their own:
# DB-GPT needs a Starlette that is too old for our server, so that one runs from .venv.
# Arguments go to pytest, in place of "all of tests/dbgpt".
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=0.8.2
VENV=.venv-dbgpt
CACHE=.cache/dbgpt
REQUIREMENTS=tests/dbgpt/requirements.txt
OWN_TESTS=src/dbgpt/model/cluster/tests/registry_impl/test_storage_registry.py
PYTHON="$VENV/bin/python"

say() { echo "dbgpt: $*" >&2; }

# Output only matters when it fails.
quietly() {
  "$@" >"$CACHE/setup.log" 2>&1 || {
    say "failed: $*"
    tail -n 20 "$CACHE/setup.log" >&2
    exit 1
  }
}

# 3.11 only: DB-GPT's aiohttp pin has no wheel for 3.12, and we need 3.11 ourselves.
is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

find_python() {
  for candidate in "${DBGPT_PYTHON:-}" .venv/bin/python python3.11 python3 python; do
    if [ -n "$candidate" ] && is_311 "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null 2>&1 && found=$(uv python find 3.11 2>/dev/null) && is_311 "$found"; then
    echo "$found"
  fi
}

set_up() {
  local python
  python=$(find_python)
  if [ -z "$python" ]; then
    say "skipped: DB-GPT $VERSION needs Python 3.11, and there is none here (say which: DBGPT_PYTHON=/path/to/python3.11)"
    exit 0
  fi
  say "setting up $VENV with DB-GPT $VERSION (once, about a minute) ..."
  rm -rf "$VENV"
  quietly "$python" -m venv "$VENV"
  quietly "$PYTHON" -m pip install --disable-pip-version-check -r "$REQUIREMENTS"
  quietly "$PYTHON" -m pip install --disable-pip-version-check --no-deps -e .
  touch "$STAMP"
}

# None of DB-GPT's code is in this repository: its tests come from its source archive.
fetch_tests() {
  say "fetching DB-GPT's source archive for its own tests (once) ..."
  quietly "$PYTHON" -m pip download --disable-pip-version-check --no-deps --no-binary dbgpt -d "$CACHE" "dbgpt==$VERSION"
  tar -xzf "$CACHE/dbgpt-$VERSION.tar.gz" -C "$CACHE" "dbgpt-$VERSION/$OWN_TESTS"
}

mkdir -p "$CACHE"
STAMP="$VENV/.ready-$(cksum <"$REQUIREMENTS" | cut -d' ' -f1)"
if ! { [ -e "$STAMP" ] && is_311 "$PYTHON"; }; then set_up; fi
if [ ! -e "$CACHE/dbgpt-$VERSION/$OWN_TESTS" ]; then fetch_tests; fi
[ "${1:-}" != --setup-only ] || exit 0
if [ ! -x .venv/bin/redis-registry ]; then
  say "no .venv/bin/redis-registry to serve with: run 'make setup' first"
  exit 1
fi

[ $# -gt 0 ] || set -- --expect-own=8 tests/dbgpt
say "DB-GPT's own 8 registry tests, its client and its worker, against real processes ..."
DBGPT_OWN_TESTS="$PWD/$CACHE/dbgpt-$VERSION/$OWN_TESTS" exec "$PYTHON" -m pytest -c tests/dbgpt/pytest.ini -q "$@"
