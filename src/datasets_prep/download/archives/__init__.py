"""Archives, read as a stream and trusted in nothing: what kind, what is packed in them, where to.

`kinds` tells them by their content, `streams` decompresses ahead in a thread, `tar` and `zips` read
members, `rules` says what a member may be called and how much there may be, `links` makes copies.
"""
