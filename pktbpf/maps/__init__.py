"""Live maps: storage in flat memory that compiled programs work on, and a Python and a syscall face over the same code.

One file per family (array, hashtab, ...), with compiled operations on a descriptor row; `dispatch` chooses by kind.
`Map` is what users hold; creating one registers its descriptor in the process-wide table of pktbpf.maps.registry.
"""
