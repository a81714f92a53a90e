"""What does this stream say? A sans-io decoder, transports and an encoder for Xen migration streams."""
