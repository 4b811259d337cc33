"""timm's backbones: how they are built, what their head is, and what each of them can do."""
