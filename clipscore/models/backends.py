"""open_clip, imported without packages that few of its CLIPs need, and that are slow to import."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def without(*packages: str) -> Iterator[list[str]]:
    """Import what can do without these packages as if they were not installed; yields those that were not there yet."""
    withheld = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(withheld))  # type: ignore[arg-type]  # importing None is an ImportError
    try:
        yield withheld
    finally:
        for name in withheld:
            del sys.modules[name]


# For these of its modules
_OPTIONAL = {"timm": "timm_model", "transformers": "hf_model", "huggingface_hub": "pretrained"}
with without(*_OPTIONAL) as _withheld:
    import open_clip

__all__ = ["bring", "open_clip", "with_towers", "without"]


def with_towers(config: Mapping[str, Any]) -> None:
    """Import what the towers of an open_clip configuration come from; ImportError: it is not installed."""
    image, text = config["vision_cfg"], config["text_cfg"]
    used = {"timm": image.get("timm_model_name"), "transformers": text.get("hf_model_name")}
    bring(*(name for name in used if used[name]))


def bring(*packages: str) -> None:
    """Import packages that open_clip was imported without, for what needs them; ImportError: one is not installed."""
    for name in set(packages) & set(_withheld):
        importlib.import_module(name)
        importlib.reload(getattr(open_clip, _OPTIONAL[name]))  # its classes see the names of their module anew
        _withheld.remove(name)
