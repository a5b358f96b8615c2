# Sourced by the benchmark scripts: benchmark CONFIG DATASET... [KEY=A,B ...] -- GPU [key=value ...]
# Runs one config on each data set, and with each value of the keys given before the --. Hyper-parameters are in the
# config, paths in configs/paths.yaml. GPU: number of the CUDA device, several (0,1), or cpu; where a scheduler has set
# CUDA_VISIBLE_DEVICES, the number counts among those. A UUID (GPU-..., MIG-...) is taken as it is. NPROC=N: in N
# processes, shared out over the GPUs; without it one per GPU.

_gpu_form='^(cpu|([0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+)(,([0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+))*)$'

_see_gpus() {  # sets CUDA_VISIBLE_DEVICES to the devices $1 of the allocation, if there is one
  local given allocated word seen=()
  IFS=, read -ra given <<<"$1"
  IFS=, read -ra allocated <<<"${CUDA_VISIBLE_DEVICES:-}"
  for word in "${given[@]}"; do
    if [[ -z "${CUDA_VISIBLE_DEVICES:-}" || "$word" == *-* ]]; then
      seen+=("$word")
    elif ((word < ${#allocated[@]})); then
      seen+=("${allocated[word]}")
    else
      echo "error: GPU $word was asked for, but CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES leaves ${#allocated[@]}, counted from 0" >&2
      return 2
    fi
  done
  export CUDA_VISIBLE_DEVICES="$(IFS=,; echo "${seen[*]}")"
}

benchmark() {
  local config="$1" script="bash ${0#"$PWD"/}" datasets=() sweeps=() words
  shift
  while [[ "$1" != -- ]]; do
    if [[ "$1" == *=* ]]; then sweeps+=(--sweep "$1"); else datasets+=("$1"); fi
    shift
  done
  shift
  _keep_paths_of_methods "$@"
  set -- "${words[@]}"
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    source scripts/environment.sh
    echo "usage: [NPROC=N] $script GPU [key=value ...]"
    echo "GPU: number of the CUDA device, several (0,1), or cpu; NPROC: how many processes share the samples"
    echo "--dry-run prints the command and runs nothing"
    echo "paths in overrides are relative to the repository's root, but for method=FILE.py:CLASS"
    echo "data sets: ${datasets[*]} (others: dataset=a,b)"
    if ((${#sweeps[@]})); then echo "one run for each: ${sweeps[*]#--sweep} (one of them: KEY=VALUE)"; fi
    python -m scripts.run --config "$config" "${@:2}" --help
    return
  fi
  local gpu="${1:-}"
  if [[ ! "$gpu" =~ $_gpu_form ]]; then
    echo "error: the first argument is the GPU's number or UUID, several like 0,1, or cpu; got '$gpu'" >&2
    echo "usage: $script GPU [key=value ...]; --help lists the keys" >&2
    return 2
  fi
  shift
  local commas="${gpu//[^,]/}"
  local num_gpus=$((${#commas} + 1))
  local num_procs="${NPROC:-$num_gpus}"
  if [[ ! "$num_procs" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: NPROC is the number of processes, 1 or more; got '$num_procs'" >&2
    return 2
  fi
  source scripts/environment.sh
  words=(device=cuda)
  if [[ "$gpu" == cpu ]]; then words=(device=cpu); else _see_gpus "$gpu" || return; fi
  local start=(python -m scripts.run)
  if ((num_procs > 1)); then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # torchrun's own choice, made without its warning
    start=(python -m scripts.torchrun --standalone --nproc-per-node="$num_procs" -m scripts.run)
    words+=(procs_per_gpu=$(((num_procs + num_gpus - 1) / num_gpus)))
  fi
  "${start[@]}" --datasets "${datasets[@]}" "${sweeps[@]}" --config "$config" "${words[@]}" "$@"
}

_keep_paths_of_methods() {  # a user's method is found from the folder where the user stands; sets words, PYTHONPATH
  local word IFS=: entries=()
  words=()
  for word in "$@"; do
    if [[ "$word" == method=[!/~]*.py:* ]]; then word="method=$PWD/${word#method=}"; fi
    words+=("$word")
  done
  for word in ${PYTHONPATH:-}; do
    if [[ "$word" == /* ]]; then entries+=("$word"); else entries+=("$PWD/$word"); fi
  done
  if ((${#entries[@]})); then export PYTHONPATH="${entries[*]}"; fi
}

# train_mapper CONFIG -- GPU [key=value ...], extract_features NAME DATASET -- GPU [--option value ...]: in one process

train_mapper() {
  _one_device "${@:3}"
  local train=(python -m scripts.train_mapper --config "$1")
  if [[ "$3" == -* ]]; then "${train[@]}" --help; else "${train[@]}" device="$device" "${@:4}"; fi
}

extract_features() {
  _one_device "${@:4}"
  if [[ "$4" == -* ]]; then exec python -m captioning.features --help; fi
  local options=(--dataset "$2" --split train --policy ViT-B/16 --device "$device")
  python -m captioning.features --name "$1" "${options[@]}" "${@:5}"
}

_one_device() {  # of the words after the --; sets device
  if [[ ! "${1:-}" =~ $_gpu_form && ! "${1:-}" =~ ^(-h|--help)$ || "${1:-}" == *,* ]]; then
    echo "error: the first argument is the GPU's number or UUID, or cpu; got '${1:-}'" >&2
    return 2
  fi
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  source scripts/environment.sh
  device=cpu
  if [[ "$1" != cpu && "$1" != -* ]]; then
    device=cuda
    _see_gpus "$1" || return
  fi
}
