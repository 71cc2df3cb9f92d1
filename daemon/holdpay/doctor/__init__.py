"""`holdpayd doctor` and `holdpayd bake-macaroon`: is everything in place, and how to mend what is not.

A look (``machine``, ``certificate``, ``lnd``, ``provider``) gives a value or ``Unseen``; a judgement (``judge_*``,
pure) makes findings of it. Nothing is ordered, paid or written, and no look outlives its time limit (``looking``).
"""
