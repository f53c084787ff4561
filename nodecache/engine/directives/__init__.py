"""What directives beside `cache` and `forward` do to questions and replies."""
