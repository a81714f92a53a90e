"""What the receiver would have in hand: a guest's memory, pages, p2m, vcpus, and the policy it was promised."""
