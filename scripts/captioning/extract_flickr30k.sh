#!/usr/bin/env bash
# CLIP features of Flickr30k's training images and captions: bash scripts/captioning/extract_flickr30k.sh GPU [--option value ...]
# GPU: number of the CUDA device, or cpu. Options: python -m captioning.features --help. Safe to repeat after a stop.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
extract_features flickr30k_train_vitb16 flickr30k -- "$@"
