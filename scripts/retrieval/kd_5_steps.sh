#!/usr/bin/env bash
# KD, 5 steps, paper Table 2: bash scripts/retrieval/kd_5_steps.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/kd_5_steps.yaml coco flickr30k direction=image_to_text,text_to_image -- "$@"
