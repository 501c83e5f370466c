"""Engine against engine, above all ours against the live kernel: compare, shrink, and seeded generators of cases."""
