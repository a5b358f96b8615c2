#!/usr/bin/env bash
# DKD on the image encoder: bash scripts/classification/dkd.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/dkd.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
