#!/usr/bin/env bash
# CLIP features of COCO's training images and captions: bash scripts/captioning/extract_coco.sh GPU [--option value ...]
# GPU: number of the CUDA device, or cpu. Options: python -m captioning.features --help. Safe to repeat after a stop.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
extract_features coco_train_vitb16 coco -- "$@"
