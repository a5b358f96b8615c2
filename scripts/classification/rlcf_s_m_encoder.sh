#!/usr/bin/env bash
# RLCF-S-M, paper Table 1 (image encoder): bash scripts/classification/rlcf_s_m_encoder.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/rlcf_s_m_encoder.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet -- "$@"
