# The documentation topics that come with Python, character by character: no internet needed.
dataset = "pydoc_topics"
max_iters = 1000
eval_interval = 100
