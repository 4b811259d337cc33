"""timm's backbones: how they are built, what each can do, their weights, and the leaderboard that ranks them."""
