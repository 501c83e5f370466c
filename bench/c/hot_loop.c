/* bpf_filter over packets that lie in memory. Arguments: capture, expression, most packets, passes.
 * Prints packets, accepted, and the least seconds of a pass. */
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct packet {
	size_t at;
	unsigned int caplen, len;
};

int main(int argc, char **argv)
{
	char error[PCAP_ERRBUF_SIZE];
	struct bpf_program program;
	struct pcap_pkthdr *header;
	const u_char *bytes;
	struct timespec begin, end;
	pcap_t *capture;

	if (argc != 5 || !(capture = pcap_open_offline(argv[1], error)) ||
	    pcap_compile(capture, &program, argv[2], 1, PCAP_NETMASK_UNKNOWN))
		return 1;
	long most = atol(argv[3]), passes = atol(argv[4]), count = 0, accepted = 0;
	size_t used = 0, room = 1 << 20;
	struct packet *packets = malloc((size_t)most * sizeof *packets);
	u_char *buffer = malloc(room);

	while (count < most && pcap_next_ex(capture, &header, &bytes) == 1) {
		if (used + header->caplen > room)
			buffer = realloc(buffer, room *= 2);
		memcpy(buffer + used, bytes, header->caplen);
		packets[count].at = used;
		packets[count].caplen = header->caplen;
		packets[count++].len = header->len;
		used += header->caplen;
	}
	double least = 1e9;
	for (long pass = 0; pass < passes; pass++) {
		accepted = 0;
		clock_gettime(CLOCK_MONOTONIC, &begin);
		for (long i = 0; i < count; i++)
			accepted += bpf_filter(program.bf_insns, buffer + packets[i].at, packets[i].len,
					       packets[i].caplen) != 0;
		clock_gettime(CLOCK_MONOTONIC, &end);
		double taken = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
		if (taken < least)
			least = taken;
	}
	printf("%ld %ld %.9f\n", count, accepted, least);
	return 0;
}
