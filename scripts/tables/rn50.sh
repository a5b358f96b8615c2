#!/usr/bin/env bash
# Table 1's data sets with a ResNet-50: bash scripts/tables/rn50.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table rn50 -- "$@"
