"""Names, heads, records and shards: parse, emit, validate. Nothing here opens a file."""
