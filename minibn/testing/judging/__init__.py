"""How `check_vjp` decides: oracles, the bench, the verdict."""
