"""open_clip, imported without packages that few of its CLIPs need, and that are slow to import."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any

_OPTIONAL = {"timm": "timm_model", "transformers": "hf_model", "huggingface_hub": "pretrained"}  # and who reads them
_withheld = [name for name in _OPTIONAL if name not in sys.modules]
sys.modules.update(dict.fromkeys(_withheld))  # type: ignore[arg-type]  # importing None is an ImportError
try:
    import open_clip
finally:
    for _name in _withheld:
        del sys.modules[_name]

__all__ = ["bring", "open_clip", "with_towers"]


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
