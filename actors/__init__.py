"""The rooms that stay alive: thin Ray shells around the core."""
