// The types of core.c as the target has them: moved, resized, nested otherwise, one field gone, one flavor renamed.

struct point {
	long pad;
	int x;
	int y;
};

struct packet_state {
	long new_at_the_front;
	char name[16];
	unsigned short count;
	unsigned int spare : 10, kind : 4;
	signed int depth : 6;
	int first;
	struct {
		int filler;
		struct {
			long inside;
			long either_pad;
			int either;
		};
	};
	struct packet_state *next;
	unsigned int small;
	int list[8];
	struct point points[5];
	int renamed;
};

enum color { BLUE = 40, GREEN = 41, RED = 42 };
typedef int (*handler_t)(int, struct packet_state *);

struct packet_state state;
enum color color;
handler_t handler;
