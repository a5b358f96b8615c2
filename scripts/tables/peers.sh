#!/usr/bin/env bash
# The field's methods on Table 1's data sets: bash scripts/tables/peers.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table peers -- "$@"
