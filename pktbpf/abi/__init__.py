"""What the kernel promises a program: context layout, ancillary data, helper and map rows, limits. Data only."""
