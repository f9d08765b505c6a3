"""From a command line to finished runs: what every experiment shares.

command_line   flags from a dataclass of settings; bad input is one line
settings       those of every experiment, those of experiments on images, and what can't work
session        opening and continuing a study, and every way to stop
study          where results lie: studies, runs, checkpoints
study_lock     one process at a time trains a study
json_files     what its files hold: JSON objects, streams of lines, numbers
runner         every run of a study, from wherever each stands, then the figures
entry_point    how a program ends: with what exit code, and one line for an error
comparability  which studies may stand in one table or figure: one scale, one data set
loop           the training loop: saves, continues bit for bit after a kill, and measures
step           one update: what is minimised, and what a recorder may look at
device_steps   steps on a GPU: batches made there, a captured graph
recorders      what is measured while a network trains
probes         recorders of `minibn.analysis`: landscape, covariate shift, curvature
"""
