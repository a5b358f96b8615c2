#!/usr/bin/env bash
# TPT + CoOp, paper Table 1 (prompt tuning): bash scripts/classification/tpt_coop.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/tpt_coop.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
