# Sourced by the benchmark scripts: benchmark CONFIG DATASET... [KEY=A,B ...] -- GPU [key=value ...]
# Runs one config on each data set, and with each value of the keys given before the --, on one GPU. Hyper-parameters are in the config, paths in configs/paths.yaml.

benchmark() {
  local config="$1" script="bash ${0#"$PWD"/}" datasets=() sweeps=()
  shift
  while [[ "$1" != -- ]]; do
    if [[ "$1" == *=* ]]; then sweeps+=(--sweep "$1"); else datasets+=("$1"); fi
    shift
  done
  shift
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    source scripts/environment.sh
    echo "usage: $script GPU [key=value ...]     GPU: number of the CUDA device, or cpu"
    echo "paths in overrides are relative to the repository's root"
    echo "data sets: ${datasets[*]} (others: dataset=a,b)"
    if ((${#sweeps[@]})); then echo "one run for each: ${sweeps[*]#--sweep} (one of them: KEY=VALUE)"; fi
    python -m scripts.run --config "$config" --help
    return
  fi
  local gpu="${1:-}"
  if [[ ! "$gpu" =~ ^(cpu|[0-9]+)$ ]]; then
    echo "error: the first argument is the GPU's number, or cpu; got '$gpu'" >&2
    echo "usage: $script GPU [key=value ...]; --help lists the keys" >&2
    return 2
  fi
  shift
  source scripts/environment.sh
  local device=cuda
  if [[ "$gpu" == cpu ]]; then device=cpu; else export CUDA_VISIBLE_DEVICES="$gpu"; fi
  python -m scripts.run --config "$config" --datasets "${datasets[@]}" "${sweeps[@]}" device="$device" "$@"
}
