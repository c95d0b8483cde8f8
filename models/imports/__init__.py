"""Foreign files: what a file or folder is, what it tells of its network, and the settings that are still missing."""
