# Tiny Shakespeare in GPT-2 tokens: a minute on two cores.
dataset = "shakespeare"
max_iters = 1000
eval_interval = 100
