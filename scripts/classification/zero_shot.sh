#!/usr/bin/env bash
# CLIP zero-shot, paper Table 1: bash scripts/classification/zero_shot.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/zero_shot.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
