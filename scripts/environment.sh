# Sourced by the other scripts; afterwards `python` is one that has the requirements. It is .venv's, made and filled when
# needed, with the python of PYTHON=... or the first one found that is new enough.
# With --dry-run among the words of a script its commands are printed, and nothing is made or run.
# RLCF_TESTS=1: with the packages of the tests. RLCF_LOWEST=1: .venv-lowest, with the oldest versions that are allowed.
# RLCF_USE_ACTIVE_ENV=1: take `python` as it is (conda, a container, an own torch) and install nothing.

_rlcf_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_rlcf_venv="$_rlcf_root/.venv${RLCF_LOWEST:+-lowest}"
_rlcf_constraints="$_rlcf_root/${RLCF_LOWEST:+tests/}constraints${RLCF_LOWEST:+-lowest}.txt"
_rlcf_requirements=("$_rlcf_root/requirements.txt" ${RLCF_TESTS:+"$_rlcf_root/tests/requirements.txt"})
_rlcf_too_old='import sys; sys.exit(sys.version_info < (3, 11))'

_rlcf_fail() {
  echo "error: $*" >&2
  return 1
}

_rlcf_find_python() {  # prints a python >= 3.11
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python python3.15 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c "$_rlcf_too_old" >/dev/null 2>&1; then
      echo "$candidate"
      return 0
    fi
    if [[ "$candidate" == "${PYTHON:-}" ]]; then
      _rlcf_fail "PYTHON=$PYTHON is not a Python 3.11 or newer ($("$PYTHON" --version 2>&1 | head -n 1 || true))"
      return 1
    fi
  done
  _rlcf_fail "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11 $0"
}

_rlcf_missing() {  # prints the requirements whose modules cannot be found; imports nothing, so it is quick
  python - "${_rlcf_requirements[@]}" <<'PY'
import importlib.util, re, sys
modules = {"open_clip_torch": "open_clip", "pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml",
           "pytest-timeout": "pytest_timeout", "pytest-xdist": "xdist"}
texts = [open(name, encoding="utf-8").read().partition("\n# optional")[0] for name in sys.argv[1:]]
lines = "\n".join(texts).splitlines()
names = [re.match(r"[\w-]+", line).group() for line in lines if re.match(r"\w", line)]
print(*(name for name in names if importlib.util.find_spec(modules.get(name, name)) is None))
PY
}

_rlcf_stamp() {  # what .venv was, or would be, filled from
  python - "${_rlcf_requirements[@]}" "$_rlcf_constraints" <<'PY'
import hashlib, sys
data = b"".join(open(name, "rb").read() for name in sys.argv[1:]) + sys.version.encode()
print(hashlib.sha256(data).hexdigest())
PY
}

_rlcf_install() {
  local stamp_file="$VIRTUAL_ENV/rlcf-stamp${RLCF_TESTS:+-tests}" stamp missing
  stamp="$(_rlcf_stamp)" || return 1
  if [[ -f "$stamp_file" && "$(<"$stamp_file")" == "$stamp" ]]; then
    return 0
  fi
  echo "installing the requirements into $VIRTUAL_ENV (a few GB and minutes, once)" >&2
  if python -m pip install --disable-pip-version-check --no-input \
      "${_rlcf_requirements[@]/#/-r}" -c "$_rlcf_constraints" >&2; then
    echo "$stamp" >"$stamp_file"
    return 0
  fi
  missing="$(_rlcf_missing)" || return 1
  if [[ -n "$missing" ]]; then
    _rlcf_fail "the installation failed (see above), and these are missing: $missing"
    return 1
  fi
  echo "warning: the installation failed (no internet?); going on, because all packages are there in some version" >&2
}

_rlcf_own_environment() {
  local base
  if [[ ! -x "$_rlcf_venv/bin/python" ]]; then
    base="$(_rlcf_find_python)" || return 1
    echo "making $_rlcf_venv with $("$base" --version)" >&2
    if ! "$base" -m venv "$_rlcf_venv" >&2; then
      rm -rf "$_rlcf_venv"
      _rlcf_fail "$base -m venv failed (on Debian and Ubuntu: apt install python3-venv)"
      return 1
    fi
  fi
  export VIRTUAL_ENV="$_rlcf_venv" PATH="$_rlcf_venv/bin:$PATH"
  unset PYTHONHOME
  if ! python -c "$_rlcf_too_old"; then
    _rlcf_fail "$VIRTUAL_ENV does not work, or its Python is older than 3.11; delete it and start again"
    return 1
  fi
  _rlcf_install
}

_rlcf_active_environment() {
  local missing
  if ! python -c "$_rlcf_too_old"; then
    _rlcf_fail "RLCF_USE_ACTIVE_ENV=1 needs a \`python\` of 3.11 or newer on PATH ($(python --version 2>&1 || true))"
    return 1
  fi
  missing="$(_rlcf_missing)" || return 1
  if [[ -n "$missing" ]]; then
    _rlcf_fail "the active environment lacks: $missing; python -m pip install ${_rlcf_requirements[*]/#/-r}"
    return 1
  fi
}

_rlcf_environment() {
  if [[ "${RLCF_USE_ACTIVE_ENV:-0}" == 1 ]]; then
    _rlcf_active_environment
  elif [[ ! -w "$_rlcf_root" && ! -x "$_rlcf_venv/bin/python" ]]; then
    _rlcf_fail "$_rlcf_root cannot be written to, so no .venv can be made in it; take an own environment: RLCF_USE_ACTIVE_ENV=1"
    return 1
  elif [[ -w "$_rlcf_root" ]] && command -v flock >/dev/null; then  # two scripts must not both fill .venv
    exec {_rlcf_lock}>"$_rlcf_root/.venv.lock"
    flock -n "$_rlcf_lock" || { echo "another script is filling $_rlcf_venv; waiting for it" >&2; flock "$_rlcf_lock"; }
    _rlcf_own_environment || { exec {_rlcf_lock}>&-; return 1; }
    exec {_rlcf_lock}>&-
  else
    _rlcf_own_environment
  fi
}

_rlcf_dry_run() {  # --dry-run among the words of the script that sources this: its commands are printed, nothing is done
  python() {
    local word line="python"
    for word in "$@"; do
      if [[ "$word" != --dry-run ]]; then line+=" $(printf '%q' "$word")"; fi
    done
    echo "$line"
  }
  exec() { "$@"; exit; }
}

if [[ " $* " == *" --dry-run "* ]]; then _rlcf_dry_run; else _rlcf_environment || return 1; fi
