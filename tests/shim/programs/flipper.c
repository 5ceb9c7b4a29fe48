/* flipper tcp|sendto|sendmsg IP OTHER PORT TIMES: connects, or sends a datagram, while another thread changes the
 * address in memory from IP to OTHER and back. Each server says its own address: it has to be the one that getpeername,
 * or recvfrom, gives. Prints how often each was reached, and how often it was refused. */
#define OWN_MAIN
#include <pthread.h>

#include "test.h"

static struct address target;
static struct in_addr both[2];
static volatile int over;

static void *flip(void *unused) {
    volatile in_addr_t *at = &target.in.sin_addr.s_addr;
    for (unsigned turn = 0; !over; turn++) *at = both[turn % 2].s_addr;
    return unused;
}

/* Which was reached; -1: refused. */
static int which(const struct address *peer, const char *said) {
    TEXT(said, show(peer));
    return peer->in.sin_addr.s_addr == both[1].s_addr;
}

static int reach_by_tcp(void) {
    char said[64] = "";
    int client = OK(socket(AF_INET, SOCK_STREAM, 0)), reached = -1;
    if (connect(client, &target.any, target.size) < 0) {
        SAME(errno, ECONNREFUSED);
    } else {
        struct address peer = peer_of(client);
        CHECK(recv(client, said, sizeof said - 1, MSG_WAITALL) > 0);
        reached = which(&peer, said);
    }
    close(client);
    return reached;
}

static int reach_by_udp(int by_message) {
    static int client = -1;
    char said[64] = "";
    struct iovec part = {"who?", 4};
    struct msghdr message = {.msg_name = &target.any, .msg_namelen = target.size, .msg_iov = &part, .msg_iovlen = 1};
    struct address peer = {.size = sizeof peer.storage};
    if (client < 0) client = OK(socket(AF_INET, SOCK_DGRAM, 0));
    long sent = by_message ? sendmsg(client, &message, 0) : sendto(client, "who?", 4, 0, &target.any, target.size);
    if (sent < 0) {
        SAME(errno, ECONNREFUSED);
        return -1;
    }
    SAME(events_of(client, POLLIN, 5000), POLLIN);
    OK(recvfrom(client, said, sizeof said - 1, 0, &peer.any, &peer.size));
    return which(&peer, said);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int counts[3] = {0};
    pthread_t flipper;
    both[0] = at(argv[2], 0).in.sin_addr;
    both[1] = at(argv[3], 0).in.sin_addr;
    target = at(argv[2], atoi(argv[4]));
    SAME(pthread_create(&flipper, 0, flip, 0), 0);
    for (int i = 0; i < atoi(argv[5]) || (!counts[0] + !counts[1] + !counts[2]) == 2; i++)
        counts[1 + (strcmp(argv[1], "tcp") ? reach_by_udp(!strcmp(argv[1], "sendmsg")) : reach_by_tcp())]++;
    over = 1;
    pthread_join(flipper, 0);
    printf("%d %d %d\n", counts[1], counts[2], counts[0]);
    return 0;
}
