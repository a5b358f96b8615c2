#!/usr/bin/env bash
# Zero-shot ensemble of three CLIPs: the mean of their logits: bash scripts/classification/zero_shot_ensemble.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/zero_shot_ensemble.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
