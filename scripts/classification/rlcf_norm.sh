#!/usr/bin/env bash
# RLCF on the norm layers of the image encoder: bash scripts/classification/rlcf_norm.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/rlcf_norm.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
