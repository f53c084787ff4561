"""DNS messages as octets: strict scanning and composing; nothing raises on hostile input."""
