"""What is kept, for how long, and the two tables that keep it."""
