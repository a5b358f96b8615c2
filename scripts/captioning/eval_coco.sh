#!/usr/bin/env bash
# CapDec and ClipCap as they are, on COCO: bash scripts/captioning/eval_coco.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/captioning/eval_capdec.yaml coco -- "$@"
benchmark configs/captioning/eval_clipcap.yaml coco -- "$@"
