"""Would this guest come back? A model of the restoring toolstack and of Xen, over Xen migration streams."""
