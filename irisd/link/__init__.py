"""Links: the encrypted conversations of nodes.

Pure: ``noise`` (the Noise framework), ``handshake`` (what is said before keys are
agreed), ``session`` (records after), ``settling`` (which of several connections
is the link), ``limits``, ``outcome``. Edges: ``connection``,
``dialer``, ``listener``, ``link`` and ``service``, the front door.
"""
