"""A fleet whose robots and producers reach its door over a network that is slow, torn or deaf."""
