/* holder IP PORT: says its pid, connects, opens files, and after a line on stdin connects once more; says how many of
 * the files are open still. Between the connects is nothing that needs much of the stack. */
#define OWN_MAIN
#include "test.h"

enum { FILES = 16 };

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct address where = at(argv[1], atoi(argv[2]));
    int first = tcp(argv[1]), second = tcp(argv[1]), held[FILES], open_still = 0;
    char line;
    dprintf(1, "%d\n", getpid());
    OK(connect(first, &where.any, where.size));
    for (int i = 0; i < FILES; i++) held[i] = open("/dev/null", O_RDONLY);
    SAME(write(1, "holds\n", 6), 6);
    SAME(read(0, &line, 1), 1);
    OK(connect(second, &where.any, where.size));
    for (int i = 0; i < FILES; i++) open_still += fcntl(held[i], F_GETFD) >= 0;
    printf("%d of %d\n", open_still, FILES);
    return 0;
}
