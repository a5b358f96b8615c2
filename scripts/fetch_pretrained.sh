#!/usr/bin/env bash
# Fetch and check the weights of the paper's tables: bash scripts/fetch_pretrained.sh [name ...] [--list | --check] [--annotations]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
python -m scripts.fetch "$@"
