"""Checkers of histories: what clients did to a fleet and were told, against what the fleet promises.

`history` is the record and its recorder, `outcomes` finds jobs lost, doubled or ended twice, `lifecycle`
holds each job against the transition table over all orders of overlapping calls. Pure: no Ray, no clock.
A process that is not run by pytest needs this package's parent folder on its PYTHONPATH.
"""
