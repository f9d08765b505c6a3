"""The parts of `experiments.gpu_check`, their measurements, and a sitting, which runs them."""
