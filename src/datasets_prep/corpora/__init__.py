"""Corpora at scale: documents are tokenized shard by shard, then put in order.

Work is cut by the input (``datasets_prep.documents``), so a shard is the same whoever makes it.
``shards`` are artifacts of the store, made by the processes of a ``crew``; ``gathering`` puts
their tokens into the final files; ``making`` is the whole of it.
"""
