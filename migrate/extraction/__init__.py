"""A guest's memory out of its stream: as a raw image, as a core that crash(8) opens, or one page of it."""
