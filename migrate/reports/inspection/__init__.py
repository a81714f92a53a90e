"""What `migrate show` prints."""
