"""What a filter needs between a sender and a receiver: descriptors, messages, signals, files, and an understudy."""
