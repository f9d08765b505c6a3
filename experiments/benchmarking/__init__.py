"""The parts of `python -m experiments.benchmark`, by subject.

clock       the host's clock, and a GPU's
timing      contenders in turn in one process, their medians and spread
cases       what is timed: a network, a batch, a layer; and our side of it
pytorch     PyTorch's side; imported only where it is installed
comparison  cases timed one after another; ours beside theirs: cells, the ratio
parts       what is measured on a CPU
others      one convolution in MyGrad and PyDyNet, where they are installed
machine     what the machine can do, and what a step costs by count
memory      the peak memory of a step, each in a process of its own
startup     how long an import takes
targets     what was to be reached, and whether it was

And on a GPU:

gpu          contenders of a training step, and what a round is
gpu_parts    what is measured
device       the GPU, or the host in its place for a rehearsal
launches     each kernel's share of a step
pytorch_gpu  PyTorch's side: eager, a captured graph, compiled
"""
