"""What a person or a program reads of a replay: a summary of Results, or records of packets while they stream."""
