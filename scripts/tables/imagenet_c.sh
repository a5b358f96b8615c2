#!/usr/bin/env bash
# ImageNet-C's 15 corruptions, at severity 5 or severity=N: bash scripts/tables/imagenet_c.sh GPU [--list] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/run_table.sh"
run_table imagenet_c -- "$@"
