#!/usr/bin/env bash
# RLCF-S on Flickr30k, paper Table 2: bash scripts/retrieval/rlcf_s_flickr30k.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/retrieval/rlcf_s_flickr30k.yaml flickr30k direction=image_to_text,text_to_image -- "$@"
