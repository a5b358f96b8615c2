#!/usr/bin/env bash
# The paper's tables from cheap to dear; stops at the first figure that is off, with the most likely cause:
# bash scripts/reproduce.sh GPU [table1 ...] [--samples 500] [--figures FILE] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/benchmark.sh"
_one_device "$@"
if [[ "$1" == -* ]]; then exec python -m scripts.reproduce --help; fi
exec python -m scripts.reproduce "${@:2}" device="$device"
