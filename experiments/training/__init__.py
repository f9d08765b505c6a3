"""From a command line to finished runs: what every experiment shares.

command_line   flags from a dataclass of settings; bad input is one line
settings       of every experiment, and of those on images, with their checks
session        opening, continuing and stopping a study
study          folders and files of results: what lies where
run            one training: its files, checked before it goes on
checkpoints    the last two checkpoints of a run
study_lock     one process at a time trains a study
lease          one process at a time writes to a run, also where nothing can be locked
json_files     JSON objects, streams of JSON lines, numbers
provenance     versions, commit, device and BLAS: what a result may depend on beside its settings
signals        Ctrl-C, SIGTERM, SIGHUP: the first saves, the second ends
runner         every run of a study, each from its last checkpoint, then the figures
entry_point    exit codes of programs, and one line for an error
comparability  which studies may share a table or figure: one scale, one data set
loop           the training loop: saves, continues bit for bit after a kill, and measures
step           one update: the task, and the step as recorders read it
device_steps   steps on a GPU: batches made there, a captured graph
recorders      what is measured while a network trains
probes         recorders of `minibn.analysis`: landscape, covariate shift, curvature
"""
