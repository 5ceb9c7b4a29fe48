/* herald IP PORT: tells each client at which of its addresses it has been reached; by TCP, and by UDP. */
#define OWN_MAIN
#include "test.h"

static void answer_datagrams(int fd, const char *ip, int port) {
    OK(BIND(fd, ip, port));
    struct address own = name_of(fd);
    for (;;) {
        struct address from = {.size = sizeof from.storage};
        char data[64];
        ssize_t size = recvfrom(fd, data, sizeof data, 0, &from.any, &from.size);
        if (size >= 0) sendto(fd, show(&own), strlen(show(&own)), 0, &from.any, from.size);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        answer_datagrams(OK(socket(AF_INET, SOCK_DGRAM, 0)), argv[1], atoi(argv[2]));
    }
    for (int listener = listening(argv[1], atoi(argv[2]));;) {
        int server = OK(accept(listener, 0, 0));
        struct address own = name_of(server);
        dprintf(server, "%s", show(&own));
        close(server);
    }
}
