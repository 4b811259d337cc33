"""Views: how a media file becomes images, and how the scores of its images become the file's."""
