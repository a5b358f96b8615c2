#!/usr/bin/env bash
# CapDec + RLCF-S-M from COCO to Flickr30k: bash scripts/captioning/tta_capdec_s_m_c2f.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/capdec_s_m_c2f.yaml flickr30k -- "$@"
