#!/usr/bin/env bash
# CapDec and ClipCap as they are, from COCO to nocaps, paper Table 3: bash scripts/captioning/eval_c2n.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/eval_capdec.yaml nocaps/in-domain nocaps/near-domain nocaps/out-domain -- "$@"
benchmark configs/captioning/eval_clipcap.yaml nocaps/in-domain nocaps/near-domain nocaps/out-domain -- "$@"
