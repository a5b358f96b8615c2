#!/usr/bin/env bash
# Ten fine-grained data sets: bash scripts/tables/fine.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table fine -- "$@"
