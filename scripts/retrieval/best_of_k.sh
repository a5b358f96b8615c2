#!/usr/bin/env bash
# Best of K, RLCF's control without a gradient: bash scripts/retrieval/best_of_k.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/best_of_k.yaml coco flickr30k direction=image_to_text,text_to_image -- "$@"
