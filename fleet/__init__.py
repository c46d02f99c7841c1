"""The mind: pure, synchronous, deterministic. No Ray, no asyncio, no clock, no dice, no files."""
