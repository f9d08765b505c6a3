"""How `check_vjp` decides: oracles, their ensemble at one input, the verdict."""
