#!/usr/bin/env bash
# What is there and what is not, before a run finds out: bash scripts/doctor.sh [data set ...] [--deep] [--json]
# Without names: everything that the paper's tables need. Also: table1, table2, table3, fine_grained, imagenet_c,
# weights.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
source "$here/environment.sh"
cd "$here/.."
exec python -m scripts.doctor "$@"
