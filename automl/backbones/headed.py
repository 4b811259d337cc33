"""A backbone of timm's below a head of automl's, as a network that answers what a timm model is asked."""

from typing import Any

from torch import nn


class HeadedBackbone(nn.Module):
    """A backbone of timm's whose own pooling and classifier are not used; a subclass says how the head is reached."""

    backbone: nn.Module

    @property
    def pretrained_cfg(self) -> Any:
        """The description of its weights by timm."""
        return self.backbone.pretrained_cfg

    def get_classifier(self) -> nn.Module:
        """Returns what is new."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes activations of the backbone again in the backward pass."""
        self.backbone.set_grad_checkpointing(enable)  # type: ignore[operator]

    def no_weight_decay(self) -> set[str]:
        """Names the parameters that know no weight decay."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}


def is_channels_last(backbone: nn.Module) -> bool:
    """Returns whether a backbone's features are (B, H, W, C), as those of Swin are."""
    return str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
