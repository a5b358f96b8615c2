#!/usr/bin/env bash
# CapDec and ClipCap as they are, from COCO to Flickr30k, paper Table 3: bash scripts/captioning/eval_c2f.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/eval_capdec.yaml flickr30k -- "$@"
benchmark configs/captioning/eval_clipcap.yaml flickr30k -- "$@"
