# Tiny Shakespeare in GPT-2 tokens: under a minute on two cores.
dataset = "shakespeare"
max_iters = 300
batch_size = 128
eval_interval = 100
