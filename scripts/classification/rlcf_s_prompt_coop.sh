#!/usr/bin/env bash
# RLCF-S + CoOp, paper Table 1 (prompt tuning): bash scripts/classification/rlcf_s_prompt_coop.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/rlcf_s_prompt_coop.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
