# Sourced by the scripts of the tables: run_table TABLE -- GPU [--list] [key=value ...]
# Runs every row and column of a table, one script after the other, and prints the table.

source "$(dirname "${BASH_SOURCE[0]}")/../benchmark.sh"

run_table() {
  local table="$1" script="bash ${0#"$PWD"/}" gpu="" list="" words=() word command commands status failed=() output=()
  shift 2
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  for word in "$@"; do
    case "$word" in
      -h | --help)
        echo "usage: [NPROC=N] $script GPU [--list] [key=value ...]"
        echo "GPU: number of the CUDA device, several (0,1), or cpu; NPROC: how many processes share the samples of a run"
        echo "Runs every row and column of $table and prints it beside published numbers. The same command goes on with"
        echo "what is missing; a row that fails is named at the end. Rows whose samples build on each other take one"
        echo "process. --list prints the commands and runs nothing; key=value goes to every run (limit=100, seed=1)."
        return 0
        ;;
      --list | --dry-run) list=1 ;;
      *=*) words+=("$word") ;;
      *)
        if [[ -n "$gpu" ]]; then
          echo "error: expected key=value, got '$word'" >&2
          return 2
        fi
        gpu="$word"
        ;;
    esac
    if [[ "$word" == output_root=* ]]; then output+=(--output-root "${word#output_root=}"); fi
    if [[ "$table $word" == "imagenet_c severity="* ]]; then output+=("$word"); fi
  done
  if [[ -n "$list" && -z "$gpu" ]]; then gpu=0; fi
  if [[ ! "$gpu" =~ $_gpu_form ]]; then
    echo "error: the first argument is the GPU's number or UUID, several like 0,1, or cpu; got '$gpu'" >&2
    echo "usage: $script GPU [--list] [key=value ...]; --help says more" >&2
    return 2
  fi
  commands="$(python3 -m scripts.tables.paper "$table" "$gpu" ${words[@]+"${words[@]}"})" || return 2
  if [[ -n "$list" ]]; then
    echo "$commands"
    return 0
  fi
  source scripts/environment.sh
  while IFS= read -r -u 3 command; do
    echo "$command" >&2
    status=0
    bash -c "$command" 3<&- || status=$?
    if ((status > 128)); then return "$status"; fi  # stopped by a signal: the user wants no further row
    if ((status)); then failed+=("$command"); fi
  done 3<<<"$commands"
  python -m scripts.tables "$table" ${output[@]+"${output[@]}"}
  if ((${#failed[@]})); then
    echo "error: ${#failed[@]} of $(wc -l <<<"$commands") rows failed (their messages are above):" >&2
    printf '  %s\n' "${failed[@]}" >&2
    return 1
  fi
}
