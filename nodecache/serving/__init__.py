"""What is served at present, and how it changes: blocks, listeners, pages, reloads."""
