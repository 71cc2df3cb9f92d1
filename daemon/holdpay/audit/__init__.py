"""`holdpayd check` and `holdpayd recover`: the journal held against itself, its laws and LND; and a lost one rebuilt.

Pure comparisons (``journal``, ``laws``, ``unresolved``, ``against_lnd``, ``rebuild``) over values (``books``,
``findings``); ``database``, ``check`` and ``recover`` do the I/O. Nothing in here can pay.
"""
