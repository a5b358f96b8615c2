#!/usr/bin/env bash
# RLCF prompt tuning on the ten fine-grained sets: bash scripts/classification/rlcf_prompt_fine.sh GPU [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
benchmark configs/classification/rlcf_prompt_fine.yaml \
  flower102 dtd oxford_pets stanford_cars ucf101 caltech101 food101 sun397 aircraft eurosat -- "$@"
