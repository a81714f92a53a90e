"""A stream taken apart for people to look at: what lies where, and what the receiver would make of it."""
