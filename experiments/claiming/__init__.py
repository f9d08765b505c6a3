"""What `experiments.claims` is made of.

evidence    studies -> the runs of a variant at a rate, one a seed
metrics     runs of one seed -> one number; what is read off one run: there, layers, walks
rules       numbers, one a seed -> reproduced, contradicted or undecided
claim       what a claim is: a sentence of the paper, a metric, a rule fixed before the run
training, distributions, landscape, deep_linear, theorems, learning_rates      the claims themselves
table       verdicts -> markdown and JSON
"""
