#!/usr/bin/env bash
# RLCF-S-M on COCO, paper Table 2: bash scripts/retrieval/rlcf_s_m_coco.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/rlcf_s_m_coco.yaml coco direction=image_to_text,text_to_image -- "$@"
