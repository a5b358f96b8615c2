#!/usr/bin/env bash
# Fetch data sets into data_root: bash scripts/fetch_data.sh NAME ... [--list]; names as in dataset=..., table1, fine_grained
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
python -m scripts.fetch.data "$@"
