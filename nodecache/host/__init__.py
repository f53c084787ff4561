"""The node: its interface, its packet filter rules, and the one-shot tool that changes them."""
