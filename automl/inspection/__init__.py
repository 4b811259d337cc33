"""Pages about images, clips and folders: heat maps, and a clip's frames, faces, sound and score over time."""
