#!/usr/bin/env bash
# CapDec + RLCF-S from COCO to nocaps, paper Table 3: bash scripts/captioning/tta_capdec_s_c2n.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/capdec_s_c2n.yaml nocaps/in-domain nocaps/near-domain nocaps/out-domain -- "$@"
