#!/usr/bin/env bash
# TPT + CoOp + KD, paper Table 1 (prompt tuning): bash scripts/classification/tpt_coop_kd.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/tpt_coop_kd.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
