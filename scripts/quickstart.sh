#!/usr/bin/env bash
# From a fresh clone to a table of RLCF on real images: bash scripts/quickstart.sh [key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # one thread for each run; several run at a time
python -m scripts.demo.benchmark "$@"
