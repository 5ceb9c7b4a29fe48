/* What a Unix socket can't do, and `spawn --tcp` is for: plain TCP's answers, by TCP. */
#include "test.h"

#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

CASE(linger_0_resets) {
    for (int i = 0; i < 2; i++) {
        struct pair pair = connected("127.0.0.1");
        int closing = i ? pair.server : pair.client, other = i ? pair.client : pair.server;
        struct linger at_once = {1, 0};
        char byte;
        OK(setsockopt(closing, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
        close(closing);
        FAILS(read(other, &byte, 1), ECONNRESET);
    }
}

CASE(linger_0_of_the_listener_is_inherited) {
    int listener = tcp("127.0.0.1");
    struct linger at_once = {1, 0};
    char byte;
    OK(setsockopt(listener, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    int client = dial("127.0.0.1", port_of(listener));
    close(OK(accept(listener, 0, 0)));
    FAILS(read(client, &byte, 1), ECONNRESET);
}

CASE(what_nobody_has_set_is_not_inherited) {
    int listener = tcp("127.0.0.1"), yes = 1;
    OK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes)); /* so its options are looked at */
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    int client = dial("127.0.0.1", port_of(listener));
    int server = OK(accept(listener, 0, 0));
    CHECK(option(server, SOL_SOCKET, SO_INCOMING_CPU) >= 0); /* a listener's is -1 */
    close(client);
}

CASE(only_the_second_send_after_the_peers_close_fails) {
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    CHECK(events_of(pair.client, POLLIN, 5000) & POLLIN);
    SAME(send(pair.client, "first", 5, MSG_NOSIGNAL), 5);
    CHECK(events_of(pair.client, 0, 5000) & POLLHUP); /* the reset has come */
    FAILS(send(pair.client, "second", 6, MSG_NOSIGNAL), EPIPE);
}

CASE(a_send_after_the_peers_shutdown_of_its_reading_half) {
    struct pair pair = connected("127.0.0.1");
    OK(shutdown(pair.server, SHUT_RD));
    SAME(send(pair.client, "there", 5, MSG_NOSIGNAL), 5);
}

CASE(no_hup_after_the_peers_close) {
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    SAME(events_of(pair.client, POLLIN | POLLRDHUP, 5000), POLLIN | POLLRDHUP);
}

CASE(many_small_writes_that_nobody_reads) {
    struct pair pair = connected("127.0.0.1");
    OK(set(pair.client, IPPROTO_TCP, TCP_NODELAY, 1));
    for (int i = 0; i < 100000; i++) SAME(send(pair.client, "x", 1, MSG_DONTWAIT), 1);
}

CASE(truncated_data_is_discarded) {
    struct pair pair = connected("127.0.0.1");
    SAME(write(pair.client, "there", 5), 5);
    CHECK(events_of(pair.server, POLLIN, 5000) & POLLIN);
    SAME(recv(pair.server, 0, 3, MSG_TRUNC), 3);
    char rest[3] = "";
    SAME(read(pair.server, rest, 2), 2);
    TEXT(rest, "re");
}

CASE(nothing_is_queued_when_all_is_read) {
    struct pair pair = connected("127.0.0.1");
    int queued = -1;
    talk(pair.client, pair.server);
    OK(ioctl(pair.client, SIOCOUTQ, &queued));
    SAME(queued, 0);
}

CASE(info) {
    struct pair pair = connected("127.0.0.1");
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    talk(pair.client, pair.server);
    OK(getsockopt(pair.client, IPPROTO_TCP, TCP_INFO, &info, &size));
    SAME(info.tcpi_state, TCP_ESTABLISHED);
    CHECK(info.tcpi_rtt > 0 && info.tcpi_snd_mss > 10000); /* loopback's, whatever options were carried */
}

CASE(segments_are_loopbacks_whatever_options_are_carried) {
    int listener = tcp("127.0.0.1"), client = tcp("127.0.0.1");
    OK(set(listener, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    int server = OK(accept(listener, 0, 0));
    SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK(option(client, IPPROTO_TCP, TCP_MAXSEG) > 10000);
    CHECK(option(server, IPPROTO_TCP, TCP_MAXSEG) > 10000);
}

CASE(urgent_data) {
    struct pair pair = connected("127.0.0.1");
    char byte;
    SAME(send(pair.client, "!", 1, MSG_OOB), 1);
    CHECK(events_of(pair.server, POLLPRI, 5000) & POLLPRI);
    SAME(recv(pair.server, &byte, 1, MSG_OOB), 1);
    SAME(byte, '!');
}

/* A program that never saw the connection made: it asks the trap handler. */
CASE(an_execd_program_knows_who_it_talks_to) {
    struct pair pair = connected("127.0.0.1");
    struct address own = name_of(pair.client), from = peer_of(pair.server);
    TEXT(show(&own), show(&from));
    for (int i = 0; i < 2; i++) {
        int fd = i ? pair.server : pair.client;
        struct address name = name_of(fd), peer = peer_of(fd);
        char number[16], wanted_name[64], wanted_peer[64];
        snprintf(number, sizeof number, "%d", fd);
        snprintf(wanted_name, sizeof wanted_name, "%s", show(&name));
        snprintf(wanted_peer, sizeof wanted_peer, "%s", show(&peer));
        end_well(IN_CHILD({
            setenv("TELL_FD", number, 1);
            setenv("WANTED_NAME", wanted_name, 1);
            setenv("WANTED_PEER", wanted_peer, 1);
            dup2(OK(open("/dev/null", O_WRONLY)), 1); /* one program's cases are listed in the output */
            execl("/proc/self/exe", "tcp", "as_told_by_the_environment", NULL);
        }));
    }
}

CASE(as_told_by_the_environment) {
    if (!getenv("TELL_FD")) return;
    int fd = atoi(getenv("TELL_FD"));
    for (int i = 0; i < 2; i++) {
        struct address name = name_of(fd), peer = peer_of(fd);
        TEXT(show(&name), getenv("WANTED_NAME"));
        TEXT(show(&peer), getenv("WANTED_PEER"));
    }
}

CASE(a_socket_that_has_lost_its_peer) {
    struct pair pair = connected("127.0.0.1");
    struct linger at_once = {1, 0};
    struct address peer = {.size = sizeof peer.storage};
    OK(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
    close(pair.client);
    CHECK(events_of(pair.server, 0, 5000) & POLLHUP);
    FAILS(getpeername(pair.server, &peer.any, &peer.size), ENOTCONN);
}
