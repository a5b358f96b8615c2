#!/usr/bin/env bash
# All of the paper's Table 1, image classification: bash scripts/tables/table1.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table table1 -- "$@"
