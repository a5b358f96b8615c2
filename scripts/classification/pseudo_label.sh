#!/usr/bin/env bash
# Pseudo-label, paper Table 1 (image encoder): bash scripts/classification/pseudo_label.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/pseudo_label.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
