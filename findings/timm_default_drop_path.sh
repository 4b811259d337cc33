#!/usr/bin/env bash
# timm: "no drop_path_rate given" does not mean "no stochastic depth".
#
# Seen with timm 1.0.31, torch 2.14.1: timm.create_model(NAME) without any regularisation argument builds most networks
# with stochastic depth off, and some with it on: Swin, Swin V2, FocalNet, FasterNet, NextViT, TinyViT, EfficientFormer V2
# and NesT. Their rate is the one that they were trained with from scratch on ImageNet: 0.1 for swin_tiny, 0.5 for nest_tiny.
#
# Why a good guess is wrong: ViT, ConvNeXt, DeiT, EVA, ResNet and EfficientNet all default to 0, the argument is called
# the same everywhere, and timm's own train.py passes nothing when --drop-path is not given.
#
# What it means: comparing backbones "with the same settings" by fine-tuning each for a few epochs compares half a dozen
# families with up to half of their blocks dropped against families with none. Say drop_path_rate=0.0 explicitly.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "timm==1.0.31" "torch==2.14.1" "torchvision==0.29.1"

cat > look.py <<'PY'
import timm

expected = {  # the largest rate of any block
    "swin_tiny_patch4_window7_224": 0.1,
    "swinv2_tiny_window8_256": 0.1,
    "focalnet_tiny_srf": 0.1,
    "nest_tiny_jx": 0.5,
    "vit_tiny_patch16_224": 0.0,
    "convnext_tiny": 0.0,
    "resnet50": 0.0,
    "efficientnet_b0": 0.0,
}


def largest_rate(**given):
    model = timm.create_model(name, num_classes=2, **given)
    return round(max([float(getattr(module, "drop_prob", 0) or 0) for module in model.modules()]), 4)


for name, rate in expected.items():
    default, asked = largest_rate(), largest_rate(drop_path_rate=0.0)
    print(f"{name:32} default {default:.1f}, with drop_path_rate=0.0: {asked:.1f}")
    assert default == rate, f"{name}: {default} instead of {rate}"
    assert asked == 0
print("timm", timm.__version__)
PY
venv/bin/python look.py
