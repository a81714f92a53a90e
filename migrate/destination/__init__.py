"""Where a guest would come back: which Xen, on what host, and where its frames would lie."""
