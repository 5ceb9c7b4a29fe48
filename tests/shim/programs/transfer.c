/* transfer HOST PORT: connects, then says and hears COUNT times by every kind of call. For strace to watch. */
#define OWN_MAIN
#include <sys/uio.h>

#include "test.h"

#ifndef COUNT
#define COUNT 20
#endif

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int client = dial(argv[1], atoi(argv[2]));
    char got[8];
    struct iovec parts[] = {{"wr", 2}, {"itev", 4}};
    for (int i = 0; i < COUNT; i++) {
        SAME(write(client, "write", 5), 5);
        SAME(send(client, "send", 4, 0), 4);
        SAME(writev(client, parts, 2), 6);
        SAME(recv(client, got, 5, MSG_WAITALL), 5);
        SAME(read(client, got, 1), 1);
    }
    close(client);
    puts("ok");
    return 0;
}
