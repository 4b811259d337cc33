#!/usr/bin/env bash
# peft's LoRA on `qkv` of timm's BEiT, EVA-02 and Swin V2 changes nothing: the adapter is put in, trained and lost.
#
# `LoraConfig(target_modules=["qkv"])` is the usual choice for a vision transformer, and on timm's ViT it works. peft
# replaces the linear layer by one that adds the low-rank change in its forward(). In timm, the attention of these
# families does not call the layer: its bias is put together of two parts, so it computes
# `F.linear(x, weight=self.qkv.weight, bias=...)`. The replacement answers `.weight` with that of the layer it wraps,
# and so the adapter is passed by. Nothing fails or warns: print_trainable_parameters() counts the adapters, the loss
# falls, because the head learns, and after training every adapter is still what it was in the beginning: no change.
#
# What it means: after peft.get_peft_model(), set one adapter's B to something and look whether the output changes. Where
# it does not, choose layers that are called (`proj`, `fc1`, `fc2`), or change the weight itself, as
# torch.nn.utils.parametrize does: then whoever reads `.weight` gets the change. Both are shown.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "timm==1.0.31" "torch==2.14.1" "torchvision==0.29.1"
cat > "$work/look.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import timm
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrize


class Change(nn.Module):
    """A weight and a change of rank 4."""

    def __init__(self, weight):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, weight.shape[1])), nn.Parameter(torch.randn(len(weight), 4))

    def forward(self, weight):
        return weight + self.b @ self.a


def make(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)  # Swin V2 begins with blocks that add nothing
    return model


def differs(before, after):
    return f"{(before - after).abs().max().item():.1e}"


for name, size in (
    ("vit_tiny_patch16_224", 224),
    ("beit_base_patch16_224", 224),
    ("eva02_tiny_patch14_224", 224),
    ("swinv2_tiny_window8_256", 256),
):
    images = torch.randn(1, 3, size, size)
    changes = []
    for target in ("qkv", "proj"):
        model = make(name)
        targets = rf"(blocks|layers\.\d+\.blocks)\.\d+\.attn\.{target}"
        with torch.no_grad():
            before = model(images)
            adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets)).eval()
            count = 0
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_B" in parameter_name:
                    nn.init.normal_(parameter)
                    count += 1
            changes.append(f"peft on {target} ({count} layers): {differs(before, adapted(images))}")
    model = make(name)
    with torch.no_grad():
        before = model(images)
        for layer_name, layer in list(model.named_modules()):
            if layer_name.endswith("attn.qkv"):
                parametrize.register_parametrization(layer, "weight", Change(layer.weight))
        changes.append(f"parametrized qkv: {differs(before, model(images))}")
    print(f"{name}: {'; '.join(changes)}")
PYTHON
"$work/venv/bin/python" "$work/look.py" 2>/dev/null | tee "$work/seen"
# Seen (largest change of an output after B was drawn at random):
#       vit_tiny_patch16_224: peft on qkv (12 layers): 3.0e-01; peft on proj (12 layers): 2.1e-01; parametrized qkv: 3.4e-01
#       beit_base_patch16_224: peft on qkv (12 layers): 0.0e+00; peft on proj (12 layers): 4.1e-04; parametrized qkv: 1.3e-03
#       eva02_tiny_patch14_224: peft on qkv (12 layers): 0.0e+00; peft on proj (12 layers): 3.6e-04; parametrized qkv: 2.6e-04
#       swinv2_tiny_window8_256: peft on qkv (12 layers): 0.0e+00; peft on proj (12 layers): 3.4e-01; parametrized qkv: 9.1e-01
if grep -q '^vit_tiny.*: 0.0e+00' "$work/seen"; then exit 1; fi
for family in beit eva02 swinv2; do
  grep -q "^$family.*peft on qkv (12 layers): 0.0e+00" "$work/seen"
  if grep -q "^$family.*\(on proj (12 layers)\|parametrized qkv\): 0.0e+00" "$work/seen"; then exit 1; fi
done
echo "as described"
