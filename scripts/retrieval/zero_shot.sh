#!/usr/bin/env bash
# CLIP as it is, paper Table 2: bash scripts/retrieval/zero_shot.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/zero_shot.yaml coco flickr30k direction=image_to_text,text_to_image -- "$@"
