"""What is said of many streams."""
