"""Compiles the table of encoders that the package ships: timm's pretrained networks that no leaderboard ranks.

    python studies/leaderboard/encoders.py [--jobs N] [--out FILE]

Every name of the installed timm that has weights, has no classifier of ImageNet-1k's thousand classes, and is not in
the leaderboard. It takes about two minutes of one core, on tensors without data: no GPU, no weights, no network.
Parameters, multiplications (`gmacs`) and activations (`macts`) are those of the network with a classifier of two
classes, counted as timm's benchmarks do: on 22 networks of the leaderboard, one a family, activations agree within
0.2 %, and multiplications within 0.5 %, or 3.5 % for small convnets, of which timm counts the normalisation too.
Public scores (k-NN, linear probes) are in none of timm's files, so there is no column for them.
"""

import argparse
import datetime
import os
import re
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from automl.backbones.encoders import COLUMNS, COMMAND, SHIPPED
from automl.backbones.table import load_table
from automl.errors import SpecError
from automl.files import explain_write_errors, write_text
from automl.processes import map_in_processes

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

CLASSES = 2
IN1K_CLASSES = 1000
SOURCE = "configurations and code of the installed timm (github.com/huggingface/pytorch-image-models)"

DATA = {
    "bamboo": "Bamboo",
    "cc12m": "CC-12M",
    "datacomp1b": "DataComp-1B",
    "datacompxl": "DataComp-XL",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "in12k": "ImageNet-12k",
    "in1k": "ImageNet-1k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inw21k": "ImageNet-21k",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "laiona": "LAION-Aesthetic",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "m38m": "Merged-38M",
    "merged2b": "Merged-2B",
    "metaclip_2pt5b": "MetaCLIP-2.5B",
    "metaclip_400m": "MetaCLIP-400M",
    "openai": "WIT-400M",  # CLIP's own pairs (Radford et al. 2021, section 2.2)
    "sa1b": "SA-1B",
    "sat493m": "SAT-493M",
    "seer": "IG-1B",  # the address of timm's file says swav_ig1b
    "webli": "WebLI",
    "yfcc15m": "YFCC-15M",
}
"""Data by the words of a tag that stand for it; a tag lists it in the order of training."""

METHODS = {
    r"eupe_": "EUPE",
    r"vit_7b_patch16_dinov3": "DINOv3",
    r"dinov3": "DINOv3 distillation",  # of the one of 7 billion parameters (Siméoni et al. 2025, section 5)
    r"vit_giant_patch14_(reg4_)?dinov2": "DINOv2",
    r"dinov2": "DINOv2 distillation",  # of the giant one (Oquab et al. 2023, section 5)
    r"\.dino$": "DINO",
    r"\.mae$": "MAE",
    r"\.fcmae$": "FCMAE",
    r"_ijepa": "I-JEPA",
    r"^samvit": "SAM",
    r"^sam2": "SAM 2",
    r"^beitv2": "BEiT v2",
    r"^beit3": "BEiT-3",
    r"^beit": "BEiT",
    r"\.mim_": "masked images of EVA",
    r"tipsv2": "TIPSv2",
    r"siglip.*\.pali2": "SigLIP, then PaliGemma 2",
    r"siglip.*\.pali": "SigLIP, then PaliGemma",
    r"siglip.*\.v2_": "SigLIP 2",
    r"siglip": "SigLIP",
    r"radio_v3": "C-RADIOv3 distillation",
    r"radio_v4": "C-RADIOv4 distillation",
    r"vit_pe_core": "Perception Encoder, core",
    r"vit_pe_lang": "Perception Encoder, language",
    r"vit_pe_spatial": "Perception Encoder, spatial",
    r"aimv2.*_dist$": "AIMv2 distillation",
    r"aimv2": "AIMv2",
    r"lingbot": "LingBot-Vision",
    r"sapiens2": "Sapiens2",
    r"intern300m.*_dist$": "InternViT distillation",
    r"intern300m.*_2pt5$": "InternViT 2.5",
    r"\.qwen3_vl": "encoder of Qwen3-VL",
    r"\.qwen3_5": "encoder of Qwen3.5",
    r"\.qwen3_8": "encoder of Qwen3.8",
    r"\.qwen_drive_1_0": "encoder of Qwen-Drive-1.0",
    r"\.gemma4": "encoder of Gemma 4",
    r"\.gemma3n": "encoder of Gemma 3n",
    r"\.deepseek_v4_1_flash": "encoder of DeepSeek-V4.1-Flash",
    r"\.deepseek_v4_flash_vision_exp": "encoder of DeepSeek-V4-Flash-Vision-Exp",
    r"\.seer$": "SwAV (SEER)",
    r"mclip2": "MobileCLIP 2",
    r"mclip": "MobileCLIP",
    r"tinyclip": "TinyCLIP",
    r"metaclip2": "MetaCLIP 2",
    r"clip": "CLIP",
    r"dist_in22k": "labels and distillation",
}
"""Method by what a name has in it; the first that fits. Without one, what names an ImageNet had its labels."""

ON_IN1K = re.compile(r"\.(dino|mae|fcmae)$")
"""Tags of what was trained on ImageNet-1k without saying so (Caron et al. 2021; He et al. 2021; Ryali et al. 2023; Woo
et al. 2023)."""

FINE_TUNED = re.compile(r"_ft_in\d+k")
LABELS = re.compile(r"(in12k|w?21k|in22k|bamboo)")


class Cost(NamedTuple):
    """What an architecture costs at an image size; NaN where it is no classifier."""

    params_m: float = nan
    weights_m: float = nan
    gmacs: float = nan
    macts: float = nan
    patch: float = nan


def compile_table(jobs: int = 1) -> "pd.DataFrame":
    """Describes every encoder of the installed timm.

    Returns:
        The columns `COLUMNS`, sorted by model.
    """
    import pandas as pd

    names = list_encoders()
    costs = dict(map_in_processes(count_cost, names, jobs))
    rows = [_describe_cfg(name, _read_cfg(name)) | costs[name]._asdict() for name in names]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def list_encoders() -> list[str]:
    """Lists the names of timm that have weights, no classifier of ImageNet-1k, and no row in the leaderboard."""
    import timm

    ranked = set(load_table()["model"])
    names = sorted(set(timm.list_pretrained()) - ranked)
    return [name for name in names if _read_cfg(name).num_classes != IN1K_CLASSES]


def _read_cfg(name: str) -> Any:
    """Reads timm's configuration of a name that it lists."""
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name, allow_unregistered=False)


def _describe_cfg(name: str, cfg: Any) -> dict[str, Any]:
    """Returns what timm's configuration says of a model, by column."""
    import timm

    return {
        "model": name,
        "image_size": cfg.input_size[-1],
        "mean": " ".join(map(str, cfg.mean)),
        "std": " ".join(map(str, cfg.std)),
        "interpolation": cfg.interpolation,
        "crop_pct": cfg.crop_pct,
        "fixed_input_size": int(cfg.fixed_input_size),
        "pretraining": read_pretraining(name),
        "family": timm.models.model_entrypoint(name.partition(".")[0]).__module__.rpartition(".")[2],
        "licence": (cfg.license or "").lower(),
        "hub": cfg.hf_hub_id or "",
    }


def read_pretraining(name: str) -> str:
    """Reads from a name what a model was trained on and how: `LVD-1689M, DINOv3 distillation`; "" if it says nothing.

    Data is read from the tag, in the order of training; the method is the first of `METHODS` that fits.
    """
    tag = name.partition(".")[2]
    words = "|".join(sorted(DATA, key=len, reverse=True))
    data = [DATA[word] for word in re.findall(rf"(?:^|_)({words})(?=_|$)", tag)]
    if ON_IN1K.search(name):
        data = ["ImageNet-1k"]
    method = next((text for pattern, text in METHODS.items() if re.search(pattern, name)), "")
    if not method and LABELS.search(tag):
        method = "labels"
    elif FINE_TUNED.search(tag):
        method += ", then labels"
    return ", ".join(filter(None, (" then ".join(dict.fromkeys(data)), method)))


def count_cost(name: str) -> Cost:
    """Counts what a model costs with a classifier of two classes; only the file's size if it cannot have one."""
    from automl.backbones.timm_model import build_on_meta
    from automl.memory.trace import drop_data

    size = _read_cfg(name).input_size[-1]
    published, _ = build_on_meta(name, {})
    weights_m = round(sum(tensor.numel() for tensor in published.state_dict().values()) / 1e6, 2)
    try:
        model, _ = build_on_meta(name, {"img_size": size}, num_classes=CLASSES)
        params_m = round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2)
        drop_data(model)
        macs, activations = count_operations(model, size)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as exc:
        print(f"{name}: {' '.join(str(exc).split())[:200]}")
        return Cost(weights_m=weights_m)
    return Cost(params_m, weights_m, round(macs / 1e9, 3), round(activations / 1e6, 3), read_patch(model))


def count_operations(model: "nn.Module", image_size: int) -> tuple[int, int]:
    """Counts multiplications, and numbers that matrix products and convolutions return, of one image.

    Attention counts as the products that it is made of, however it is computed, as timm's benchmarks count it.

    Args:
        model: A network on the meta device.
        image_size: Pixels of each side.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    total = [0, 0]

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if (count := flop_registry.get(func._overloadpacket)) is not None:
                total[0] += count(*args, **(kwargs or {}), out_val=result) // 2
                total[1] += result.numel()
            return result

    model.eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Count():  # type: ignore[no-untyped-call]
        logits = model(image)
    if getattr(logits, "shape", None) != (1, CLASSES):
        raise ValueError(f"it returns {getattr(logits, 'shape', type(logits).__name__)}, not {CLASSES} logits")
    return total[0], total[1]


def read_patch(model: "nn.Module") -> float:
    """Returns the side of a token in pixels, as the model's first layer makes them; NaN for a convnet."""
    embed: Any = next((getattr(model, name) for name in ("patch_embed", "embeds") if hasattr(model, name)), None)
    if embed is None:
        return nan
    if hasattr(embed, "feat_ratio"):
        return float(embed.feat_ratio())
    patch = getattr(embed, "patch_size", nan)
    return float(patch[0] if isinstance(patch, tuple | list) else patch)


def refresh_table(out: Path = SHIPPED, jobs: int = 1) -> "pd.DataFrame":
    """Compiles the table and writes it, atomically, with its source, licence, date and command on top.

    Raises:
        SpecError: If the table cannot be written.
    """
    import timm

    table = compile_table(jobs)
    header = {
        "source": SOURCE,
        "licence": "Apache-2.0, as its source",
        "date": datetime.date.today().isoformat(),
        "command": COMMAND,
        "timm": timm.__version__,
        "scores": "none: timm publishes no k-NN or linear score of these",
    }
    comment = "".join(f"# {key}: {value}\n" for key, value in header.items())
    with explain_write_errors(out):
        write_text(out, comment + table.to_csv(index=False, lineterminator="\n"))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; default: one a core")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="default: where automl reads it")
    given = parser.parse_args(arguments)
    try:
        table = refresh_table(given.out, given.jobs)
    except SpecError as exc:
        parser.error(str(exc))
    print(f"{given.out}: {len(table)} encoders, {int(table['gmacs'].isna().sum())} of which are no classifiers")


if __name__ == "__main__":
    main()
