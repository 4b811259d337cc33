"""What a model was trained on before ImageNet-1k, read from timm's weights tag.

A tag such as `clip_laion2b_augreg_ft_in12k_in1k_384` lists data in the order of training, among methods and sizes:
LAION-2B, then ImageNet-12k, then ImageNet-1k.
"""

DATA = {
    **{name: name for name in ("in12k", "in21k", "in22k", "laion2b", "webli", "m30m", "m38m", "yfcc100m", "ig1b")},
    "jft": "jft300m",
    "laiona": "laion-aesthetic",
    "openai": "wit400m",  # CLIP's own pairs (Radford et al. 2021, section 2.2)
    "seer": "ig1b",  # Goyal et al. 2022: a billion public Instagram images
    "swag": "ig3.6b",  # Singh et al. 2022
}
"""Data by the word in a tag that stands for it."""

METHODS = {
    **{"ns": "ns", "wsl": "wsl", "swsl": "swsl", "ssl": "semisl", "ap": "ap", "adv": "adv"},
    **dict.fromkeys(("dist", "distilled", "ssld"), "dist"),
    **dict.fromkeys(("mim", "mae", "fcmae", "dino", "indomain"), "selfsl"),
}
"""Method by word, in the vocabulary of timm's `model_metadata-in1k.csv`."""


def pretraining(model: str, recorded: str | None = None) -> str:
    """Names the data, and the method if it is not plain supervision.

    Args:
        model: timm's `arch.tag`.
        recorded: What timm's metadata says of it, such as `in1k-dist`; used for what the tag leaves out.

    Returns:
        Data joined by `+`, in order, then `-method`: `in21k`, `laion2b+in12k`, `jft300m-ns`; `in1k` if ImageNet-1k
        was all.
    """
    architecture, _, tag = model.partition(".")
    words = tag.split("_")
    data = list(dict.fromkeys(DATA[word] for word in words if word in DATA))
    if not data and words[0] == "clip" and architecture.startswith("eva"):
        data = ["laion400m"]  # EVA-CLIP (Fang et al. 2022, section 3.5)
    recorded_data, _, recorded_method = (recorded or "").partition("-")
    if not data and recorded_data and not recorded_data.startswith("in1k"):
        data = [recorded_data]
    method = next((METHODS[word] for word in words if word in METHODS), recorded_method)
    return "+".join(data or ["in1k"]) + (f"-{method}" if method else "")
