# shellcheck shell=bash
# Sourced by the commands of this folder: where the checkout is, a Python that is new enough, and the environment.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

has_all_wheels() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

# Prints the first Python 3.11 to 3.13 on PATH, for which every locked package has a wheel; else one that uv has or
# fetches; else a newer one, which cannot run the sandbox. Says what to do where there is none.
find_python() {
  local name
  for name in python3 python3.{11..13} python; do
    if has_all_wheels "$name"; then
      command -v "$name"
      return
    fi
  done
  if command -v uv >/dev/null && uv run --quiet --no-project --python '>=3.11,<3.14' python -c 'import sys; print(sys.executable)'; then
    return
  fi
  for name in python3 python3.{11..19} python; do
    if is_new_enough "$name"; then
      printf '%s\n' "holdpay: only $("$name" -V) was found. The daemon runs on it; the sandbox, the demo and the tests" \
        'need Python 3.11 to 3.13, for which there is a wheel of coincurve.' >&2
      command -v "$name"
      return
    fi
  done
  printf '%s\n' "holdpay: no Python 3.11 or later was found (python3 is $(python3 -V 2>/dev/null || echo absent))." \
    'Install one (Debian 12 and later: apt install python3) and run this again.' >&2
  return 1
}

# make_venv LEVEL [DIR]: brings DIR (default: .venv of the checkout) to runtime, dev, plots, docs, lndgrpc or build.
make_venv() {
  local python
  python=$(find_python) || return
  "$python" "$root/scripts/make_venv.py" "${2:-$root/.venv}" "$1"
}
