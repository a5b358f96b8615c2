"""Everything worth knowing about the CUDA path, in one go on a machine with a GPU: `bash scripts/gpu_check.sh OUT`.

Each section is a process of its own with a time limit, so that a crash costs that section only; what it finds goes on
the screen and into OUT/gpu_check.json, its warnings and errors into OUT/gpu_check.log. With --pretend the sections run
on the device of tests/pretend_cuda.py, with small sizes: a check of this check, without a GPU.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {"tests": 100, "parity": 130, "agree": 150, "machine": 30, "speed": 150, "pipeline": 140}  # s
TOGETHER = ("tests", "parity", "agree")  # these run side by side, the others alone
Found = dict[str, Any]


def main() -> int:
    """Run the sections asked for, or be one of them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--pretend", action="store_true", help="rehearse without a GPU, with small sizes")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    work: Path = args.out / "work"
    if args.section:
        os.environ.setdefault("RLCF_PRETRAINED", str(ROOT / "pretrained"))
        globals()[f"check_{args.section}"](work, _Kept(work / f"{args.section}.json"), args.pretend)
        return 0
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found: Found = {}
    words = [*_module("scripts.gpu_check", args.pretend), str(args.out), *(["--pretend"] if args.pretend else [])]
    with open(args.out / "gpu_check.log", "w") as log:
        pipes: Found = {"stdout": subprocess.PIPE, "stderr": log, "text": True, "start_new_session": True}
        for names in [[s for s in args.only if s in TOGETHER], *([s] for s in args.only if s not in TOGETHER)]:
            began = time.time()
            running = {name: subprocess.Popen([*words, "--section", name], cwd=ROOT, **pipes) for name in names}
            for name, child in running.items():
                found[name] = _wait(name, child, began, SECTIONS[name] * (5 if args.pretend else 1), work)
    (args.out / "gpu_check.json").write_text(json.dumps(found, indent=1, default=str))
    return 0


def _module(name: str, pretend: bool) -> list[str]:
    """The beginning of a command that runs a module."""
    return [sys.executable, "-W", "ignore", "-m", *(["tests.pretend_cuda"] if pretend else []), name]


def _wait(name: str, child: subprocess.Popen[str], began: float, limit: int, work: Path) -> Found:
    try:
        text, _ = child.communicate(timeout=max(1, limit - (time.time() - began)))
        end = f"exit {child.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        text, end = child.communicate()[0], f"stopped after {limit} s"
    print(f"== {name}: {end}, {time.time() - began:.0f} s\n{text.rstrip()}", flush=True)
    file = work / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {"FAILED": end}


class _Kept(dict[str, Any]):
    """Findings, written with each one: a section that is stopped keeps what it found."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.file.write_text(json.dumps(self, default=str))
        shown = {k: v for k, v in value.items() if k != "top"} if isinstance(value, dict) else value
        print(f"  {key}: {json.dumps(shown, default=str)}", flush=True)


def check_tests(work: Path, found: Found, pretend: bool) -> None:
    """The tests marked gpu. Only their files: others import what a bare machine may not have."""
    import pytest

    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        pytest.main(["-m", "gpu", "-q", "-p", "no:cacheprovider", "-rA", *files])
    marks = ("PASSED", "FAILED", "ERROR", " passed", " failed")
    found["results"] = [line for line in text.getvalue().splitlines() if any(mark in line for mark in marks)]


def check_parity(work: Path, found: Found, pretend: bool) -> None:
    """The recorded float64 traces with every model and input on the GPU: which must equal the CPU's to 1e-8."""
    file, kinds = work / "deviations.json", "A_*one*,B_*norm" if pretend else "A_*,B_*,C_*,D_*,E_beam*,E_tta*"
    words = ["tests/golden", "--only", kinds, "--device", "cuda", "--json", str(file)]
    done = subprocess.run([*_module("tests.parity", pretend), *words], cwd=ROOT, capture_output=True, text=True)
    if not file.is_file():
        found["FAILED"] = done.stderr[-400:]
        return
    deviations = json.loads(file.read_text())
    found["deviating"] = [one for one in deviations if not one["value"] <= one["tolerance"]]
    found["largest"] = max((one["value"], one["trace"], one["quantity"]) for one in deviations)
    found["quantities"] = len(deviations)


def check_agree(work: Path, found: Found, pretend: bool) -> None:
    """Whole runs on the demo: the GPU in fp32 against the CPU (should be equal), and in fp16 (should answer alike)."""
    from scripts import run
    from scripts.demo.make_data import make_data

    data = work / "demo_data"
    make_data(data)
    views = "views.num_views=16 views.select_fraction=0.375 views.crop_scale=[0.5,1] dataset=demo/sketch"
    queries = "retrieval/rlcf_coco dataset=demo_scenes/noise num_candidates=8 lr=1e-4 direction"
    cases = {
        "rlcf_prompt": f"classification/rlcf_prompt {views}",
        "prompt_together": f"classification/rlcf_prompt {views}",
        "rlcf_encoder": f"classification/rlcf_encoder {views}",
        "encoder_graphs": f"classification/rlcf_encoder {views}",
        "atkd": f"classification/atkd {views}",
        "text_to_image": f"{queries}=text_to_image",
        "image_to_text": f"{queries}=image_to_text",
        "clipcap": "captioning/clipcap_c2f llm=demo/opt prefix_length=7 mapper_layers=2 decoding.max_new_tokens=24 "
        "checkpoint=demo/clipcap lr=3e-4 dataset=demo_scenes/noise num_candidates=6 metrics=[clipscore] "
        "metric_model=demo/reward.pt",
    }
    for name, text in cases.items():
        rows = {}
        for where, device, precision in (("cpu", "cpu", "fp32"), ("fp32", "cuda", "fp32"), ("fp16", "cuda", "fp16")):
            out, (config, *words) = work / where, text.split()
            words += [f"name={name}", "policy=demo/policy.pt", "reward.models=demo/reward.pt", "num_workers=0"]
            words += [f"device={device}", f"precision={precision}", f"output_root={out}", f"data_root={data}"]
            words += ["cuda_graphs=true"] if "graphs" in name and device == "cuda" else []
            words += ["images_at_once=4"] if "together" in name and device == "cuda" else []
            words += [f"limit={4 if pretend else 8 if name == 'clipcap' else 60}"]
            with contextlib.redirect_stdout(io.StringIO()):
                code = run.main(["--config", str(ROOT / f"configs/{config}.yaml"), *words])
            rows[where] = [] if code else _rows(out, f"{name}__*/rows.jsonl")
            if where != "cpu":
                found[f"{name}, cuda {where}"] = _compare(rows["cpu"], rows[where])


def _rows(folder: Path, pattern: str) -> list[Found]:
    return [json.loads(line) for file in folder.glob(pattern) for line in file.read_text().splitlines()]


def _compare(cpu: list[Found], gpu: list[Found]) -> Found:
    key = next((k for k in ("top5", "top10", "caption") if cpu and k in cpu[0]), None)
    if not key or len(cpu) != len(gpu):
        return {"FAILED": f"{len(cpu)} and {len(gpu)} records"}
    pairs = list(zip(cpu, gpu, strict=True))
    same = sum(a[key] == b[key] if key == "caption" else a[key][0] == b[key][0] for a, b in pairs)
    losses = [abs(x - y) for a, b in pairs for x, y in zip(a["loss"], b["loss"], strict=True)]
    moved = [b["moved"] / a["moved"] for a, b in pairs if a.get("moved")]
    least = round(min(moved, default=1.0), 4)
    return {"same answers": f"{same}/{len(cpu)}", "loss, max": float(f"{max(losses):.2g}"), "moved, least ratio": least}


def check_machine(work: Path, found: Found, pretend: bool) -> None:
    """Rates and latencies that the other figures are read against."""
    from scripts.bench import floor

    if pretend:
        floor.CUDA_PRODUCTS, floor.COPY_BYTES = floor.CPU_PRODUCTS[-1:], {"cuda": 2**20}
    device, small = torch.device("cuda"), torch.zeros(8, device="cuda")
    found["machine"] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cores": os.cpu_count()}
    found["copy_TB/s"] = floor.copy_rate(device) / 1e12
    found["TFLOP/s"] = {str(t): floor.product_rate(device, t) / 1e12 for t in (torch.float16, torch.float32)}
    found["one small launch, us"] = 1000 * floor.least_seconds(device, lambda: [small.add_(1) for _ in range(1000)])


def check_speed(work: Path, found: Found, pretend: bool) -> None:
    """Episodes at the paper's sizes with random weights: time, how busy the GPU is, launches, waits, memory."""
    from scripts.bench.__main__ import bench_class, parse_options

    tasks = ["classification --classes 200 1000", "retrieval", "captioning --steps 4"]
    tasks += ["classification --classes 200 --tune encoder --cuda-graphs", "retrieval --cuda-graphs"]
    size, repeats = ("demo", 1) if pretend else ("B16", 12)
    small = ["classification --classes 8 --views 8 --tune prompt", "retrieval --gallery 50 --cuda-graphs"]
    for words in small if pretend else tasks:
        task, *options = words.split()
        bench = bench_class(task)(parse_options(task, ["--size", size, "--device", "cuda", "--no-memory", *options]))
        for case in bench.cases():
            steps = bench.options.steps
            try:
                form, samples = bench.form(case, "fast"), [bench.sample(case, number) for number in range(3)]
                torch.cuda.reset_peak_memory_stats()
                runs = [form.timed(samples[number % 3], steps) for number in range(repeats)][repeats // 4 :]
                found[f"{words}: {case}"] = {
                    "ms": round(1000 * statistics.median(seconds for _, seconds, _ in runs), 1),
                    "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2),
                    "stages_ms": {stage: round(1000 * seconds, 1) for stage, seconds in runs[-1][2].items()},
                    **({} if pretend else _profiled(functools.partial(form.run, samples[0], steps))),
                }
            except Exception as error:  # the next case may work
                found[f"{words}: {case}"] = f"FAILED: {type(error).__name__}: {error}"


def _profiled(work: Callable[[], Any]) -> Found:
    """Kernels, the time in which the GPU was busy, and the host's waits. Device events alone count as device time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    calls = collections.Counter(event.name for event in profiler.events() if event.name.startswith("cuda"))
    times: dict[str, list[float]] = collections.defaultdict(list)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("Optimizer."):
            times[event.name].append(event.time_range.elapsed_us() / 1000)
    top = sorted(times.items(), key=lambda item: -sum(item[1]))[:12]
    return {
        "gpu_busy_ms": round(sum(map(sum, times.values())), 1), "kernels": sum(map(len, times.values())),
        "launches": calls["cudaLaunchKernel"] + calls["cudaLaunchKernelExC"], "copies": calls["cudaMemcpyAsync"],
        "waits": calls["cudaStreamSynchronize"], "top": [f"{name[:60]} {len(t)}x {sum(t):.1f} ms" for name, t in top],
    }  # fmt: skip


def check_pipeline(work: Path, found: Found, pretend: bool) -> None:
    """`scripts.run` as a user starts it, at the paper's sizes, on random weights and pictures; alone, in threes, x8."""
    from classification.data.class_names import class_names
    from clipscore.models.backends import open_clip
    from scripts.bench.timing import random_picture

    pictures = work / "images"
    for number, name in enumerate(class_names("imagenet")[:200]):  # the folders' names are the class names
        place = pictures / name.replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        random_picture(number % 20).save(place / "a.jpg")
    for arch in () if pretend else ("ViT-B-16", "ViT-L-14"):
        weights = open_clip.create_model(arch, force_quick_gelu=True).half().state_dict()
        torch.save({key: value for key, value in weights.items() if key != "attn_mask"}, work / f"{arch}.pt")
    folder, names = ("demo", ("policy", "reward")) if pretend else (work, ("ViT-B-16", "ViT-L-14"))
    policy, reward = (f"{folder}/{name}.pt" for name in names)
    words = ["--config", str(ROOT / "configs/classification/rlcf_prompt.yaml"), "dataset=random", "device=cuda",
             f"dataset_files.images={pictures}", f"policy={policy}", f"reward.models={reward}"]  # fmt: skip
    os.environ["OMP_NUM_THREADS"] = "1"
    for count, readers, at_once in [(1, 0, 1), (1, 0, 2)] if pretend else [(1, 8, 1), (3, 5, 1), (1, 8, 8)]:
        out, start = work / f"out_{count}_{at_once}", _module("scripts.run", pretend)
        title = f"{count} processes, {readers} readers each, {at_once} images at once"
        if count > 1:
            start = [*_module("scripts.torchrun", pretend), "--standalone", f"--nproc-per-node={count}", *start[-2:]]
        limit = 2 if pretend else 32 * count + 10 * at_once - 10  # whole groups
        more = [f"num_workers={readers}", f"output_root={out}", f"limit={limit}", f"procs_per_gpu={count}"]
        more += [f"images_at_once={at_once}"]
        done = subprocess.run([*start, *words, *more], cwd=ROOT, capture_output=True, text=True)
        rows = [row for row in _rows(out, "**/rows*.jsonl") if "seconds" in row]
        late = rows[len(rows) // 3 :]
        if done.returncode or not late:
            found[title] = f"exit {done.returncode}: {done.stderr[-400:]}"
            continue
        seconds = {key: statistics.median(row[key] for row in late) for key in ("seconds", "seconds_waiting")}
        stages = {s: statistics.median(r["seconds_stages"].get(s, 0) for r in late) for s in late[0]["seconds_stages"]}
        rate = count / statistics.mean(row["seconds"] + row["seconds_waiting"] for row in late)
        found[title] = seconds | {"images/s of all": rate, "stages": stages}


if __name__ == "__main__":
    sys.exit(main())
