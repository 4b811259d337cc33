#!/usr/bin/env bash
# AutoGluon MultiModal 1.6.3 takes a timm backbone from a local folder, but not the folder that timm's hub has.
#
# A model on the hub is a folder with config.json and its weights, the ImageNet classifier among them, and the obvious
# way to use AutoGluon on a machine without internet (Kaggle, a cluster) is to give such a folder as
# `model.timm_image.checkpoint_name`. AutoGluon builds the network without a classifier (num_classes=0) and loads the
# weights strictly: the two tensors of the classifier are unexpected, and whatever goes wrong there is reported as
# "Timm model path ... does not exist or model is invalid", although the path exists and the file is whole.
# In a hyperparameter search the message is deeper still: every trial ends at once, and what is printed last is that
# there was not enough time for an epoch.
#
# What it means: take the classifier out of the weights first, and let config.json have num_features. Both are shown.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "autogluon.multimodal==1.6.3" "timm==1.0.3" "torch===2.13.0" "torchvision===0.28.0"
cat > "$work/load.py" <<'PYTHON'
import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import timm
import torch
from autogluon.multimodal.models.timm_image import TimmAutoModelForImagePrediction


def load(folder: Path, classifier: bool) -> str:
    """Writes a folder as the hub has it, with or without the classifier's weights, and loads it."""
    folder.mkdir()
    model = timm.create_model("resnet10t")
    headless = timm.create_model("resnet10t", num_classes=0).state_dict()
    weights = model.state_dict()
    torch.save(weights if classifier else {name: weights[name] for name in headless}, folder / "pytorch_model.bin")
    names = ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes", "first_conv", "classifier")
    config = {"architecture": "resnet10t", "num_classes": 1000, "num_features": model.num_features}
    config["pretrained_cfg"] = {name: model.pretrained_cfg[name] for name in names}
    (folder / "config.json").write_text(json.dumps(config))
    try:
        TimmAutoModelForImagePrediction(prefix="timm_image", checkpoint_name=str(folder), num_classes=2)
    except ValueError as exc:
        cause = str(exc.__context__).split("\n\t")[-1].strip()
        return f"{exc}".replace(str(folder), "FOLDER") + f" Its cause, which is not shown: {cause}"
    return "loaded"


work = Path(sys.argv[1])
print("with the classifier:", load(work / "hub", classifier=True))
print("without it:", load(work / "headless", classifier=False))
PYTHON
"$work/venv/bin/python" "$work/load.py" "$work" 2>/dev/null | tee "$work/seen"
# Seen: with the classifier: Timm model path FOLDER does not exist or model is invalid. Its cause, which is not shown:
#       Unexpected key(s) in state_dict: "fc.weight", "fc.bias".
#       without it: loaded
grep -q 'with the classifier: Timm model path FOLDER does not exist.*Unexpected key' "$work/seen"
grep -q 'without it: loaded' "$work/seen"
echo "as described"
