"""Other projects' interfaces in Python, one file each."""
