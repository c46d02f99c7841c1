"""One router per kind of thing."""
