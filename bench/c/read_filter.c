/* libpcap's own loop: read every record, run the compiled expression, count. Prints packets, accepted, seconds. */
#include <pcap/pcap.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv)
{
	char error[PCAP_ERRBUF_SIZE];
	struct bpf_program program;
	struct pcap_pkthdr *header;
	const u_char *bytes;
	struct timespec begin, end;
	long packets = 0, accepted = 0;
	pcap_t *capture;

	if (argc != 3 || !(capture = pcap_open_offline(argv[1], error)) ||
	    pcap_compile(capture, &program, argv[2], 1, PCAP_NETMASK_UNKNOWN))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (pcap_next_ex(capture, &header, &bytes) == 1) {
		packets++;
		accepted += pcap_offline_filter(&program, header, bytes) != 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld %ld %.9f\n", packets, accepted,
	       (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
	return 0;
}
