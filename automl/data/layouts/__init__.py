"""Recognising how data lies on a disk: folders, label files, the layouts of contests and public sets."""
