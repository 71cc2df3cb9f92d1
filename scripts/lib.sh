# shellcheck shell=bash
# Sourced by the commands of this folder: where the checkout is, a Python that is new enough, and the environment.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the first Python >= 3.11 on PATH, else one that uv has or fetches; says what to do where there is none.
find_python() {
  local name
  for name in python3 python3.{11..19} python; do
    if is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  if command -v uv >/dev/null && uv run --quiet --no-project --python '>=3.11' python -c 'import sys; print(sys.executable)'; then
    return
  fi
  printf '%s\n' "holdpay: no Python 3.11 or later was found (python3 is $(python3 -V 2>/dev/null || echo absent))." \
    'Install one (Debian 12 and later: apt install python3) and run this again.' >&2
  return 1
}

# make_venv LEVEL [DIR]: brings DIR (default: .venv of the checkout) to runtime, dev or lndgrpc.
make_venv() {
  local python
  python=$(find_python) || return
  "$python" "$root/scripts/make_venv.py" "${2:-$root/.venv}" "$1"
}
