#!/usr/bin/env bash
# TPT from a CoCoOp start: bash scripts/classification/tpt_cocoop.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/tpt_cocoop.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
