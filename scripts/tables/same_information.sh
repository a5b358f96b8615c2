#!/usr/bin/env bash
# What the gradient adds over asking the reward model: bash scripts/tables/same_information.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table same_information -- "$@"
