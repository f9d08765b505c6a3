"""What `experiments.gpu_check` is made of: its parts, what they measure, and a sitting of them."""
