"""The live Linux kernel: system calls, and rigs of sockets that show its verdicts packet by packet."""
