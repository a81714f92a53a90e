"""What toolstack, hypervisor and device model write when a restore fails, and the rules that each line can mean."""
