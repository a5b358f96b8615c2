#!/usr/bin/env bash
# Pseudo-label, paper Table 2: bash scripts/retrieval/pseudo_label.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/pseudo_label.yaml coco flickr30k direction=image_to_text,text_to_image -- "$@"
