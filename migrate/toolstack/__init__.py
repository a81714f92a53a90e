"""What the restoring toolstack (libxc, in libxl, xl or xapi) would do with a stream."""
