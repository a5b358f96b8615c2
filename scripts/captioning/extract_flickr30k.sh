#!/usr/bin/env bash
# CLIP features of Flickr30k's training images and captions: bash scripts/captioning/extract_flickr30k.sh GPU [--option value ...]
# GPU: number of the CUDA device, or cpu. Options: python -m captioning.features --help. Safe to repeat after a stop.
set -euo pipefail
gpu="${1:-}"
if [[ ! "$gpu" =~ ^(cpu|[0-9]+|-h|--help)$ ]]; then
  echo "error: the first argument is the GPU's number, or cpu; got '$gpu'" >&2
  exit 2
fi
shift
cd "$(dirname "$0")/../.."
source scripts/environment.sh
if [[ "$gpu" == -* ]]; then exec python -m captioning.features --help; fi
device=cuda
if [[ "$gpu" == cpu ]]; then device=cpu; else export CUDA_VISIBLE_DEVICES="$gpu"; fi
python -m scripts.extract_features flickr30k_train_vitb16 --dataset flickr30k --split train --policy ViT-B/16 --device "$device" "$@"
