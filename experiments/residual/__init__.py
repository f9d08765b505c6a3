"""What `skip_init` measures of residual networks at step 0, before any update.

paths       the mean square of the residual branch over that of the skip path, block by block
gradients   how alike the gradients at neighbouring inputs are
"""
