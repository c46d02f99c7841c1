"""Queues in virtual time: the rules of the fleet, their theory, and experiments with both."""
