#!/usr/bin/env bash
# RLCF image-encoder tuning on ImageNet-C at severity 5: 15 corruptions: bash scripts/classification/rlcf_imagenet_c.sh GPU [key=value ...]
# SEVERITY=3 for another severity.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"
corruptions=(
  gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog
  brightness contrast elastic_transform pixelate jpeg_compression
)
datasets=("${corruptions[@]/#/imagenet_c/}")
benchmark configs/classification/rlcf_encoder.yaml "${datasets[@]/%//${SEVERITY:-5}}" -- "$@"
