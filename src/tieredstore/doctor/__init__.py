"""What this machine and its places really do, found out by trying, and what follows for the config.

``machine`` is about this machine; ``folder``, ``locks`` and ``meeting`` try a mounted place,
``remote`` one that is reached over a network; ``child`` runs them for one tier in a process of its
own, which ``running`` starts and ends; ``advice`` says what to do. Everything that is written lies
below ``.tieredstore/doctor`` and is taken away again. Nothing is imported here.
"""
