#!/usr/bin/env bash
# Train ClipCap's mapper on COCO: bash scripts/captioning/train_clipcap_coco.sh GPU [key=value ...]
# GPU: number of the CUDA device, or cpu. After scripts/captioning/extract_coco.sh; goes on after a stop.
set -euo pipefail
gpu="${1:-}"
if [[ ! "$gpu" =~ ^(cpu|[0-9]+|-h|--help)$ ]]; then
  echo "error: the first argument is the GPU's number, or cpu; got '$gpu'" >&2
  exit 2
fi
shift
cd "$(dirname "$0")/../.."
source scripts/environment.sh
train=(python -m scripts.train_mapper --config configs/captioning/train_clipcap_coco.yaml)
if [[ "$gpu" == -* ]]; then exec "${train[@]}" --help; fi
device=cuda
if [[ "$gpu" == cpu ]]; then device=cpu; else export CUDA_VISIBLE_DEVICES="$gpu"; fi
"${train[@]}" device="$device" "$@"
