"""Readers: what they send where shared memory is small, and what is said when one dies or is silent."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from clipscore.config.load import REPOSITORY
from clipscore.data import reading
from clipscore.data.reading import read_in_background


class Numbers(Dataset):
    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3 and self.trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 3 and self.trouble == "silent":
            time.sleep(1000)
        return torch.full((1000,), float(index))


@pytest.mark.parametrize("free", [64 << 20, 1 << 40])
def test_shared_memory_is_used_where_there_is_enough(monkeypatch, caplog, free):
    reading._through_pipes.cache_clear()
    monkeypatch.setattr(reading, "free_shared_memory", lambda: free)
    is_small = free < 1 << 30
    single = list(read_in_background(Numbers(), 5, 2))
    batches = list(read_in_background(Numbers(), 5, 2, torch.stack, batch_size=2))
    assert torch.equal(torch.cat(batches), torch.stack(single)) and single[4][0] == 4
    assert all(tensor.is_shared() != is_small for tensor in (*single, *batches))
    assert [record.getMessage().startswith("67 MB") for record in caplog.records] == [True] * is_small
    reading._through_pipes.cache_clear()


@pytest.mark.parametrize("trouble", ["killed", "silent"])
def test_a_reader_that_is_gone_is_one_sentence(trouble):
    code = f"""
from tests.clipscore.test_reading import Numbers, read_in_background, reading
reading.ANSWER_S = 3
list(read_in_background(Numbers({trouble!r}), 5, 1))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert re.search(r"RuntimeError\W+a process that reads died, or was silent for 3 s .*num_workers=N", done.stderr)


DEMO = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "steps=1", "num_candidates=2", "device=cpu"]
CAPTIONER = ["llm=demo/opt", "checkpoint=demo/clipcap", "prefix_length=7", "mapper_layers=2"]
ASKED = {  # where a picture comes in, {} is its folder
    "classification": ["--image", "{}/six.png", "--classes", "red six,red nine,blue one", "views.num_views=16"],
    "retrieval": ["--query", "a red six", "--images", "{}", "num_workers=0"],
    "retrieval, by a picture": ["--query-image", "{}/six.png", "--texts", "{}/../texts.txt"],
    "captioning": ["--image", "{}/six.png", *CAPTIONER, "decoding.max_new_tokens=3"],
}


@pytest.mark.parametrize("case", ASKED)
def test_predict_turns_a_picture_upright(tmp_path, capsys, case):
    picture, exif = Image.effect_noise((48, 64), 90).convert("RGB"), Image.Exif()
    exif[0x0112] = 6  # is to be turned by a quarter, as a phone writes it
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    for name, shown, more in [("up", picture, {}), ("turned", turned, {"exif": exif})]:
        (tmp_path / name).mkdir()
        shown.save(tmp_path / name / "six.png", **more)
        picture.crop((0, 0, 40, 40)).save(tmp_path / name / "other.png")
    (tmp_path / "texts.txt").write_text("a red six\na blue one")
    predict, said = importlib.import_module(f"{case.partition(',')[0]}.predict"), []
    for name in ("up", "turned"):
        words = [word.format(tmp_path / name) for word in ASKED[case]]
        assert predict.main([*words, *DEMO, "--json"]) == 0
        said.append(capsys.readouterr().out.replace(str(tmp_path / name), ""))
    assert said[0] == said[1]
