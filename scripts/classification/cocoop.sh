#!/usr/bin/env bash
# CoCoOp without adaptation, paper Table 1: bash scripts/classification/cocoop.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/cocoop.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
