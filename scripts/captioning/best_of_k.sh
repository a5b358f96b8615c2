#!/usr/bin/env bash
# Best of K of ClipCap, RLCF's control without a gradient: bash scripts/captioning/best_of_k.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/best_of_k.yaml \
  flickr30k nocaps/in-domain nocaps/near-domain nocaps/out-domain -- "$@"
