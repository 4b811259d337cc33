#!/usr/bin/env bash
# Grad-CAM at the last block of a ViT is exactly empty where the class token is read out, and full where patches are averaged.
#
# One expects the last layer with positions to be the place for a class activation map, as in a CNN, and a network that
# classifies well to have gradients there. But what a ViT reads out decides: with global_pool="token" the head sees the
# class token alone, and after the last attention no patch reaches it. The gradient of every patch at the output of the
# last block is 0.0, not small; the map is blank, or noise scaled up where a library divides by the maximum. At the
# block's first norm, before its attention, the gradients are there. With averaged patches it is the class token whose
# gradient is 0, and the last block works. The name does not tell which one it is: in timm, vit_tiny and DeiT with
# its distillation token read tokens out, and eva02_tiny averages patches although it has a class token.
#
# What it means: do not choose the layer of a heat map by its position in the list of blocks, and do not read an empty
# map as "the network saw nothing". Ask for gradients first, or hook the first norm of the last block. automl inspect
# runs the network once and takes the last layer whose positions have a gradient.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "timm==1.0.31" "torch==2.14.1" "torchvision==0.29.1"
cat > "$work/look.py" <<'PYTHON'
import timm
import torch

print("timm", timm.__version__, "torch", torch.__version__.partition("+")[0])
EXPECTED = {
    # patches at the output of the last block, at its first norm; prefix tokens at its output: do they have a gradient?
    ("vit_tiny_patch16_224", None): (False, True, True),
    ("deit_tiny_distilled_patch16_224", None): (False, True, True),
    ("vit_tiny_patch16_224", "avg"): (True, True, False),
    ("eva02_tiny_patch14_224", None): (True, True, False),
}
differ = False
for (name, pool), expected in EXPECTED.items():
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=2, **({"global_pool": pool} if pool else {})).eval()
    for weight in network.parameters():  # a fresh head may be zero, which would stop every gradient
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.05)
    seen = {}

    def keep(key):
        def hook(_module, _inputs, output):
            output.retain_grad()
            seen[key] = output

        return hook

    last = network.blocks[-1]
    last.register_forward_hook(keep("block"))
    last.norm1.register_forward_hook(keep("norm"))
    network(torch.randn(1, 3, 224, 224))[0, 1].backward()
    prefix = network.num_prefix_tokens
    largest = [
        float(seen["block"].grad[0, prefix:].abs().max()),
        float(seen["norm"].grad[0, prefix:].abs().max()),
        float(seen["block"].grad[0, :prefix].abs().max()),
    ]
    print(f"{name}, pooling {network.global_pool}: largest gradient of the patches at the last block {largest[0]:.1e}, "
          f"at its first norm {largest[1]:.1e}; of the prefix tokens at the last block {largest[2]:.1e}")
    differ |= tuple(value != 0 for value in largest) != expected
raise SystemExit("this has changed" if differ else 0)
PYTHON
"$work/venv/bin/python" "$work/look.py"
# Seen on 2026-11-28:
# vit_tiny and DeiT (token): patches 0.0e+00 at the last block, not 0 at its first norm; prefix tokens not 0
# vit_tiny with averaged patches, eva02_tiny: patches not 0, prefix tokens 0.0e+00
