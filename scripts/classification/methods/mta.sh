#!/usr/bin/env bash
# MTA: bash scripts/classification/methods/mta.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../benchmark.sh"
benchmark configs/classification/methods/mta.yaml \
  imagenet_a imagenet_v2 imagenet_r imagenet_sketch imagenet \
  flower102 dtd oxford_pets stanford_cars ucf101 caltech101 food101 sun397 aircraft eurosat -- "$@"
