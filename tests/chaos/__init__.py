"""A fleet on the real network while its actors die and freeze, its robots vanish, and calls are lost.

`plan` decides what is done to whom, `house` is the server under test, `robots`, `producers`, `watchers` and
`probes` are its clients, `promises` measures what was promised, `report` prints it. `python -m chaos --help`.
"""
