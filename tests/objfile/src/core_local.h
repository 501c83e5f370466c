// What core.c believes about types that core_target.c defines otherwise.

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct packet_state {
	int first;
	unsigned int count;
	char name[8];
	unsigned char kind : 3;
	signed char depth : 5;
	void *next;
	struct {
		long inside;
		union {
			int either;
			long other;
		};
	};
	int list[4];
	struct { int x, y; } points[3];
	unsigned long small;
	int gone;
};

struct packet_state___old {
	int renamed;
};

struct never_there {
	int a;
};

#pragma clang attribute pop

enum color { RED, GREEN, BLUE };
enum missing_enum { MISSING_VALUE = 5 };
typedef int (*handler_t)(int, struct packet_state *);
