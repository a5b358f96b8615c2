#!/usr/bin/env bash
# Tests, parity, agreement, speed and throughput on a GPU, in ten minutes at most: bash scripts/gpu_check.sh [OUT]
# Without a GPU, bash scripts/gpu_check.sh OUT --pretend shows that it would run.
# Missing packages are taken from the folders .whl (wheels) and .site (unpacked); nothing is fetched.
set -uo pipefail
if [[ " $* " == *" --dry-run "* ]]; then echo "python3 -m scripts.gpu_check OUT"; exit; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="$(realpath -m "${1:-${OUT:-output}/gpu_check}")"
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
if ! python3 -c "import open_clip, pydantic" 2>/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target ${TMPDIR:-/tmp}/site .whl/*.whl || exit 1
  export PYTHONPATH="${TMPDIR:-/tmp}/site:$PWD/.site${PYTHONPATH:+:$PYTHONPATH}"
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader || true
python3 -c "import torch, transformers, open_clip, pycocoevalcap; print('torch', torch.__version__, 'transformers', transformers.__version__, 'open_clip', open_clip.__version__, 'cuda', torch.cuda.is_available())" || true
timeout 540 python3 -m scripts.gpu_check "$out" "${@:2}" 2>&1 | tee "$out/summary.txt"
rm -rf "$out/work"  # large, and made again
