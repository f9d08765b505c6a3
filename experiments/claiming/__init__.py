"""From the streams of runs to verdicts on claims. Data run one way:

streams        records of studies as arrays, kept in small files
at_equal_loss  which measurements belong to which training loss
quantities     the arrays of one run -> a number, by name
claims.toml    the claims, with metric and margin: registered before their runs
registry       a claim's number for every seed
judging        numbers, one a seed -> reproduced, contradicted, alike or undecided
"""
