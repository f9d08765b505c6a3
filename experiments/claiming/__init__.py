"""The parts of `experiments.claims`, by subject.

evidence    studies -> the runs of a variant at a rate, one a seed
metrics     runs of one seed -> one number; quantities of one run, also in layers and probes
rules       numbers, one a seed -> reproduced, contradicted or undecided
claim       a claim: a sentence of the paper, a metric, a rule fixed before the run
verdict_tables  verdicts -> Markdown and JSON

The claims themselves: training, noise, distributions, covariate_shift, landscape, curvature and
lp_norms are about VGG; deep_linear and deep_linear_landscape, theorems and theorem_units, and
learning_rates about studies of their own.
"""
