/* accepts: TCP over IPv4 or IPv6 with source or destination port 80
 * accepts: every TCP segment with such a port, whole up to 262144 bytes
 * rejects: UDP to port 80, ports 8080 and 443, later IPv4 fragments
 * rejects: TCP behind an IPv6 extension header
 * attach: packet
 * form: C array for SO_ATTACH_FILTER, as `tcpdump -dd 'tcp port 80'` prints it
 * idea: what programs paste into their sources to watch a web server from both sides
 */
static struct sock_filter port_80_any_direction[] = {
	{ 0x28, 0, 0, 0x0000000c },
	{ 0x15, 0, 6, 0x000086dd },
	{ 0x30, 0, 0, 0x00000014 },
	{ 0x15, 0, 15, 0x00000006 },
	{ 0x28, 0, 0, 0x00000036 },
	{ 0x15, 12, 0, 0x00000050 },
	{ 0x28, 0, 0, 0x00000038 },
	{ 0x15, 10, 11, 0x00000050 },
	{ 0x15, 0, 10, 0x00000800 },
	{ 0x30, 0, 0, 0x00000017 },
	{ 0x15, 0, 8, 0x00000006 },
	{ 0x28, 0, 0, 0x00000014 },
	{ 0x45, 6, 0, 0x00001fff },
	{ 0xb1, 0, 0, 0x0000000e },
	{ 0x48, 0, 0, 0x0000000e },
	{ 0x15, 2, 0, 0x00000050 },
	{ 0x48, 0, 0, 0x00000010 },
	{ 0x15, 0, 1, 0x00000050 },
	{ 0x6, 0, 0, 0x00040000 },
	{ 0x6, 0, 0, 0x00000000 },
};
