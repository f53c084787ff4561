"""A query on its way to an answer: which zone, which cache, who waits for what."""
