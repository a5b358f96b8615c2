#!/usr/bin/env bash
# RLCF on COCO, paper Table 2: bash scripts/retrieval/rlcf_coco.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/rlcf_coco.yaml coco direction=image_to_text,text_to_image -- "$@"
