"""For our users' tests as for ours: a stream builder, hypothesis strategies, big synthetic streams."""
