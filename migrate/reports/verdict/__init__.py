"""What `migrate check` and its like say of one stream."""
