#!/usr/bin/env bash
# TPT on the image encoder, paper Table 1: bash scripts/classification/tpt_encoder.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/tpt_encoder.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
