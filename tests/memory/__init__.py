"""A node whose memory or object store is full: the fleet refuses, restarts, and goes on."""
