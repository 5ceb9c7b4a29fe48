/* flipper IP OTHER PORT TIMES: connects, while another thread changes the address in memory from IP to OTHER and back.
 * Each server says its own address: it has to be the one that getpeername gives. Prints how often each was reached. */
#define OWN_MAIN
#include <pthread.h>

#include "test.h"

static struct address target;
static volatile int over;

static void *flip(void *addresses) {
    const struct in_addr *both = addresses;
    volatile in_addr_t *at = &target.in.sin_addr.s_addr;
    for (unsigned turn = 0; !over; turn++) *at = both[turn % 2].s_addr;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int reached[2] = {0, 0}, refused = 0;
    struct in_addr both[2] = {at(argv[1], 0).in.sin_addr, at(argv[2], 0).in.sin_addr};
    pthread_t flipper;
    target = at(argv[1], atoi(argv[3]));
    SAME(pthread_create(&flipper, 0, flip, both), 0);
    for (int i = 0; i < atoi(argv[4]); i++) {
        char said[64] = "";
        int client = tcp(argv[1]);
        if (connect(client, &target.any, target.size) < 0) {
            SAME(errno, ECONNREFUSED);
            refused++;
        } else {
            struct address peer = peer_of(client);
            CHECK(recv(client, said, sizeof said - 1, MSG_WAITALL) > 0);
            TEXT(said, show(&peer));
            reached[peer.in.sin_addr.s_addr == both[1].s_addr]++;
        }
        close(client);
    }
    over = 1;
    pthread_join(flipper, 0);
    printf("%d %d %d\n", reached[0], reached[1], refused);
    return 0;
}
