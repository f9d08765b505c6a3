"""The parts of `python -m experiments.benchmark`, by subject.

clock       the host's clock, and a GPU's
timing      contenders timed in turn in one process: medians and spread
cases       the timed networks, batches and layers, and our side of them
pytorch     PyTorch's side; imported only where it is installed
comparison  cases timed one after another; ours beside theirs: cells, the ratio
parts       what is measured on a CPU
others      one convolution in MyGrad and PyDyNet, where they are installed
machine     the machine's rates; the FLOP and bytes of a step
memory      the peak memory of a step, each in a process of its own
startup     how long an import takes
targets     performance targets, and whether a run reaches them

And on a GPU:

gpu          contenders of a training step, timed in rounds
gpu_parts    what is measured
device       the GPU, or the host in its place for a rehearsal
launches     each kernel's share of a step
pytorch_gpu  PyTorch's side: eager, a captured graph, compiled
"""
