#!/usr/bin/env bash
# Train ClipCap's mapper on COCO: bash scripts/captioning/train_clipcap_coco.sh GPU [key=value ...]
# GPU: number of the CUDA device, or cpu. After scripts/captioning/extract_coco.sh; goes on after a stop.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
train_mapper configs/captioning/train_clipcap_coco.yaml -- "$@"
