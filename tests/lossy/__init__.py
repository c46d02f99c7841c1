"""Calls between processes of a fleet that are lost, whose answers are lost, or that are slow.

A Ray of its own (`cluster`), and drivers in processes of their own: Ray reads faults from the environment.
"""
