"""The parts of `python -m experiments.benchmark`, by subject.

timing     contenders in turn in one process, their medians and spread
cases      what is timed: a network, a batch, a layer; and our side of it
pytorch    PyTorch's side; imported only where it is installed
others     one convolution in MyGrad and PyDyNet, where they are installed
machine    what the machine can do, and what a step costs by count
memory     the peak memory of a step, each in a process of its own
startup    how long an import takes
targets    what was to be reached, and whether it was
report     tables
"""
