"""From a command line to finished runs: what every experiment shares.

command_line   flags from a dataclass of settings; bad input is one line
settings       those of every experiment, those of experiments on images, and what can't work
session        opening and continuing a study, and every way to stop
study          where results lie: studies, runs, checkpoints
lock           one process at a time trains a study
streams        what its files hold: JSON objects, lines of a step each, numbers
carry_out      the work of a study: its runs, from wherever each stands, then the figures
reading        how programs end that read studies and train nothing
alike          which studies may stand in one table or figure: one scale, one data set
training       the loop that saves, continues bit for bit after a kill, and measures
step           one update: what is minimised, and what a recorder may look at
recorders      what is measured while a network trains
probes         recorders of `minibn.analysis`: landscape, covariate shift, curvature
"""
