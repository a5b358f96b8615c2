#!/usr/bin/env bash
# Several CLIPs as they are, mean of their cosines: bash scripts/retrieval/zero_shot_ensemble.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/zero_shot_ensemble.yaml coco flickr30k direction=image_to_text,text_to_image -- "$@"
