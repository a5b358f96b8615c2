#!/usr/bin/env bash
# The style and type checks and the tests, on the CPU, one process per core: bash scripts/test.sh [--fast | --lowest] [pytest arguments]
# Without arguments also those on a pretended GPU. With a GPU, real weights and data: python -m pytest -m gpu tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RLCF_TESTS=1
if [[ "${1:-}" == --lowest ]]; then  # the tests alone, on the oldest versions that are allowed, in .venv-lowest
  if [[ "${RLCF_USE_ACTIVE_ENV:-0}" == 1 ]]; then echo "error: --lowest has an environment of its own; leave RLCF_USE_ACTIVE_ENV out" >&2; exit 2; fi
  export RLCF_LOWEST=1 PYTHON="${PYTHON:-python3.11}"
fi
source scripts/environment.sh

export CUDA_VISIBLE_DEVICES=""
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # the models are tiny: more threads only wait for each other
export TOKENIZERS_PARALLELISM=false

if [[ -n "${RLCF_LOWEST:-}" ]]; then
  shift
  exec python -m pytest -q -n "${TEST_PROCESSES:-auto}" --dist loadfile "$@"
fi
python -m ruff check .
if [[ "${1:-}" == --fast ]]; then  # what starts no run: the maths, the formats, the configurations
  shift
  for name in runs predict train_mapper features own_method view_bank caption_metrics; do set -- --ignore-glob="*test_$name.py" "$@"; done
  exec python -m pytest -q -n "${TEST_PROCESSES:-auto}" --dist loadfile tests/{captioning,classification,clipscore,retrieval} tests/test_structure.py tests/test_pages.py "$@"
fi
python -m mypy
python -m pytest -q -n "${TEST_PROCESSES:-auto}" --dist loadfile "$@"
[ $# -gt 0 ] || python -m pytest -q -m "" tests/cuda
