/* What is not AppSwitch's: the program's own Unix sockets, UDP, pipes, files and bad descriptors. Each call's outcome
 * is told, and has to be the same with and without the shim. */
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "test.h"

#include <pthread.h>

static char directory[] = "/tmp/bypass-XXXXXX";

static struct address unix_at(const char *name) {
    struct address made = {.size = sizeof made.un};
    made.un.sun_family = AF_UNIX;
    snprintf(made.un.sun_path, sizeof made.un.sun_path, "%s/%s", directory, name);
    return made;
}

static struct address abstract_at(const char *name) {
    struct address made = {.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))};
    made.un.sun_family = AF_UNIX;
    memcpy(made.un.sun_path + 1, name, strlen(name));
    return made;
}

static void tell_name(const char *what, int (*call)(int, struct sockaddr *, socklen_t *), int fd) {
    struct address name = {.size = sizeof name.storage};
    if (call(fd, &name.any, &name.size) < 0)
        say("%s: errno %d", what, errno);
    else if (name.any.sa_family == AF_UNIX && name.size > sizeof(sa_family_t))
        say("%s: %u bytes, \"%s\"", what, (unsigned)name.size,
            name.un.sun_path[0] ? strrchr(name.un.sun_path, '/') : name.un.sun_path + 1);
    else
        say("%s: family %d, %u bytes", what, name.any.sa_family, (unsigned)name.size);
}

/* Every hook once, on one descriptor. */
static void tell_every_call(int fd) {
    struct address any = at("127.0.0.1", 0), six = at("::1", 0), un = unix_at("nothing"),
                   from = {.size = sizeof from.storage};
    struct address port9 = at("127.0.0.1", 9);
    char bytes[4];
    int value = 0,
        level_names[][2] = {{SOL_SOCKET, SO_TYPE},      {SOL_SOCKET, SO_DOMAIN},     {SOL_SOCKET, SO_PROTOCOL},
                            {SOL_SOCKET, SO_REUSEPORT}, {SOL_SOCKET, SO_ERROR},      {IPPROTO_TCP, TCP_NODELAY},
                            {IPPROTO_IP, IP_TTL},       {IPPROTO_IPV6, IPV6_V6ONLY}, {IPPROTO_TCP, TCP_MAXSEG}};
    socklen_t size = sizeof value;
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1}, named = message;
    struct ucred who = {0};
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = OK(epoll_create1(0));
    tell_name("getsockname", getsockname, fd);
    tell_name("getpeername", getpeername, fd);
    for (int i = 0; i < 9; i++) {
        size = sizeof value;
        value = 0;
        TELL(getsockopt(fd, level_names[i][0], level_names[i][1], &value, &size));
        if (level_names[i][1] != TCP_MAXSEG) say("%d %d: %d", level_names[i][0], level_names[i][1], value);
        TELL(set(fd, level_names[i][0], level_names[i][1], 1));
    }
    size = sizeof who;
    TELL(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size));
    say("peercred: %d %d", who.pid == getpid(), (int)who.uid);
    TELL(getsockopt(fd, SOL_SOCKET, SO_TYPE, 0, &size));
    TELL(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, 0));
    TELL(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, 0, 4));
    TELL(accept(fd, 0, 0));
    TELL(accept(fd, &from.any, &from.size));
    TELL(accept4(fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK));
    TELL(accept4(fd, 0, 0, 0x7f));
    TELL(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    TELL(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event));
    TELL(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0));
    TELL(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0));
    TELL(recvfrom(fd, bytes, 4, MSG_DONTWAIT, 0, 0));
    TELL(recvfrom(fd, bytes, 4, MSG_DONTWAIT, &from.any, &from.size));
    TELL(recvmsg(fd, &message, MSG_DONTWAIT));
    named.msg_name = &from.storage;
    named.msg_namelen = sizeof from.storage;
    TELL(recvmsg(fd, &named, MSG_DONTWAIT));
    TELL(sendto(fd, bytes, 4, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0));
    TELL(sendto(fd, bytes, 4, MSG_DONTWAIT | MSG_NOSIGNAL, &un.any, un.size));
    TELL(sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
    named.msg_name = &un.any;
    named.msg_namelen = un.size;
    TELL(sendmsg(fd, &named, MSG_DONTWAIT | MSG_NOSIGNAL));
    TELL(connect(fd, &un.any, un.size));
    TELL(connect(fd, 0, 16));
    TELL(connect(fd, &six.any, 3));
    TELL(bind(fd, 0, 16));
    TELL(bind(fd, &un.any, 1));
    TELL(bind(fd, &six.any, 9));
    TELL(syscall(SYS_getsockname, fd, &from.any, &from.size));
    TELL(syscall(SYS_accept4, fd, 0, 0, SOCK_NONBLOCK));
    TELL(syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &event));
    TELL(connect(fd, &any.any, any.size));
    TELL(connect(fd, &port9.any, 1));
    TELL(listen(fd, 5));
    TELL(syscall(SYS_listen, fd, 5));
    close(epoll);
}

CASE(a_bad_descriptor) {
    tell_every_call(-1);
    tell_every_call(999999);
}

CASE(a_closed_descriptor) {
    int fd = tcp("127.0.0.1");
    close(fd);
    tell_every_call(700);
}

CASE(a_file) {
    tell_every_call(OK(open("/etc/passwd", O_RDONLY)));
}

CASE(a_pipe) {
    int ends[2];
    OK(pipe2(ends, O_NONBLOCK));
    tell_every_call(ends[0]);
    tell_every_call(ends[1]);
}

CASE(a_path_descriptor) {
    tell_every_call(OK(open("/etc/passwd", O_PATH)));
}

CASE(a_pair) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 3; i++) {
        int ends[2];
        OK(socketpair(AF_UNIX, types[i] | SOCK_NONBLOCK, 0, ends));
        tell_every_call(ends[0]);
    }
}

CASE(fresh_sockets) {
    OK(mkdtemp(directory) ? 0 : -1);
    tell_every_call(OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)));
    tell_every_call(OK(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0)));
    tell_every_call(OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)));
    tell_every_call(OK(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, 0)));
    rmdir(directory);
}

/* UDP to where a TCP port would be trapped; only the any address and loopback, which both worlds have. */
CASE(udp) {
    int one = OK(socket(AF_INET, SOCK_DGRAM, 0)), other = OK(socket(AF_INET, SOCK_DGRAM, 0)),
        six = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    struct address to = at("127.0.0.1", 7001), from = {.size = sizeof from.storage};
    char bytes[9] = "";
    OK(BIND(one, "127.0.0.1", 7001));
    TELL(BIND(one, "127.0.0.1", 7002));
    TELL(BIND(other, "127.0.0.1", 7001));
    TELL(listen(one, 5));
    TELL(accept(one, 0, 0));
    SAME(sendto(other, "hello", 5, 0, &to.any, to.size), 5);
    SAME(recvfrom(one, bytes, 8, 0, &from.any, &from.size), 5);
    TEXT(bytes, "hello");
    TEXT(ip_of(&from), "127.0.0.1");
    SAME(from.size, sizeof from.in);
    OK(connect(other, &to.any, to.size));
    struct address peer = peer_of(other), own = name_of(other);
    TEXT(show(&peer), "127.0.0.1:7001");
    SAME(port_in(&own), port_in(&from));
    SAME(send(other, "again", 5, 0), 5);
    struct iovec part = {bytes, 8};
    struct msghdr message = {
        .msg_name = &from.storage, .msg_namelen = sizeof from.storage, .msg_iov = &part, .msg_iovlen = 1};
    SAME(recvmsg(one, &message, 0), 5);
    SAME(message.msg_namelen, sizeof from.in);
    TELL(BIND(six, "::1", 7001));
    TELL(set(one, IPPROTO_TCP, TCP_NODELAY, 1));
    TELL(set(one, SOL_SOCKET, SO_REUSEPORT, 1));
    SAME(option(one, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
    SAME(option(one, SOL_SOCKET, SO_REUSEPORT), 1);
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    OK(connect(other, &nowhere, sizeof nowhere));
    FAILS(send(other, "x", 1, 0), EDESTADDRREQ);
}

static void unix_service(struct address where, int type) {
    int listener = OK(socket(AF_UNIX, type, 0)), client = OK(socket(AF_UNIX, type, 0));
    OK(bind(listener, &where.any, where.size));
    TELL(bind(listener, &where.any, where.size));
    TELL(connect(client, &where.any, where.size));
    OK(listen(listener, 5));
    OK(connect(client, &where.any, where.size));
    TELL(connect(client, &where.any, where.size));
    struct address from = {.size = sizeof from.storage};
    int server = OK(accept4(listener, &from.any, &from.size, SOCK_CLOEXEC));
    say("from: %u bytes", (unsigned)from.size);
    tell_name("listener", getsockname, listener);
    tell_name("server", getsockname, server);
    tell_name("client", getsockname, client);
    tell_name("client's peer", getpeername, client);
    tell_name("server's peer", getpeername, server);
    talk(client, server);
    SAME(option(client, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
    SAME(option(client, SOL_SOCKET, SO_PROTOCOL), 0);
    SAME(option(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
    struct ucred who;
    socklen_t size = sizeof who;
    OK(getsockopt(server, SOL_SOCKET, SO_PEERCRED, &who, &size));
    SAME(who.pid, getpid());
    TELL(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
    char bytes[5];
    int sent = (int)sendto(client, "hello", 5, 0, &where.any, where.size);
    say("sendto with an address: %d, errno %d", sent, sent < 0 ? errno : 0);
    if (sent < 0) SAME(send(client, "hello", 5, 0), 5);
    from.size = sizeof from.storage;
    SAME(recvfrom(server, bytes, 5, 0, &from.any, &from.size), 5);
    say("recvfrom: %u bytes of address", (unsigned)from.size);
    close(server);
    close(client);
    close(listener);
}

CASE(its_own_unix_services) {
    CHECK(mkdtemp(directory));
    unix_service(unix_at("stream"), SOCK_STREAM);
    unix_service(unix_at("packets"), SOCK_SEQPACKET);
    unix_service(abstract_at("bypass-stream"), SOCK_STREAM);
    unlink(unix_at("stream").un.sun_path);
    unlink(unix_at("packets").un.sun_path);
    rmdir(directory);
}

CASE(its_own_unix_client_with_a_name) {
    CHECK(mkdtemp(directory));
    int listener = OK(socket(AF_UNIX, SOCK_STREAM, 0)), client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct address where = unix_at("service"), mine = unix_at("client"), from = {.size = sizeof from.storage};
    OK(bind(listener, &where.any, where.size));
    OK(listen(listener, 5));
    OK(bind(client, &mine.any, mine.size));
    OK(connect(client, &where.any, where.size));
    int server = OK(accept(listener, &from.any, &from.size));
    TEXT(strrchr(from.un.sun_path, '/'), "/client");
    tell_name("server's peer", getpeername, server);
    talk(client, server);
    unlink(where.un.sun_path);
    unlink(mine.un.sun_path);
    rmdir(directory);
}

/* A name that only looks like one of ours. */
CASE(its_own_unix_socket_with_a_name_like_ours) {
    CHECK(mkdtemp(directory));
    static const char *const names[] = {
        "as.00", "as.zz00000000000000000000000000000000000000000000000000000000000000000000000000"};
    for (int i = 0; i < 2; i++) {
        struct address where = unix_at(names[i]);
        int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
        OK(bind(fd, &where.any, where.size));
        OK(listen(fd, 5));
        tell_name("getsockname", getsockname, fd);
        SAME(option(fd, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
        unlink(where.un.sun_path);
    }
    rmdir(directory);
}

CASE(its_own_unix_datagrams) {
    CHECK(mkdtemp(directory));
    int one = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), other = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct address where = unix_at("one"), back = unix_at("other"), from = {.size = sizeof from.storage};
    OK(bind(one, &where.any, where.size));
    OK(bind(other, &back.any, back.size));
    char bytes[9] = "";
    SAME(sendto(other, "hello", 5, 0, &where.any, where.size), 5);
    SAME(recvfrom(one, bytes, 8, 0, &from.any, &from.size), 5);
    TEXT(strrchr(from.un.sun_path, '/'), "/other");
    struct iovec part = {"many", 4};
    struct mmsghdr two[2] = {0};
    for (int i = 0; i < 2; i++)
        two[i].msg_hdr = (struct msghdr){
            .msg_name = &where.any, .msg_namelen = where.size, .msg_iov = &part, .msg_iovlen = 1};
    SAME(sendmmsg(other, two, 2, 0), 2);
    for (int i = 0; i < 2; i++) SAME(recv(one, bytes, 8, 0), two[i].msg_len);
    OK(connect(other, &where.any, where.size));
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    OK(connect(other, &nowhere, sizeof nowhere));
    FAILS(send(other, "x", 1, 0), ENOTCONN);
    unlink(where.un.sun_path);
    unlink(back.un.sun_path);
    rmdir(directory);
}

static int broken_pipes;

static void count_broken_pipe(int number) {
    (void)number;
    broken_pipes++;
}

CASE(the_end_of_its_own_unix_socket) {
    struct sigaction action = {.sa_handler = count_broken_pipe};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int ends[2];
    OK(sigaction(SIGPIPE, &action, 0));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    OK(shutdown(ends[0], SHUT_WR));
    FAILS(send(ends[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    SAME(option(ends[0], SOL_SOCKET, SO_NOFCS), 0);
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    close(ends[1]);
    FAILS(send(ends[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    SAME(broken_pipes, 0);
    FAILS(send(ends[0], "x", 1, 0), EPIPE);
    FAILS(sendmsg(ends[0], &message, 0), EPIPE);
    SAME(broken_pipes, 2);
    SAME(option(ends[0], SOL_SOCKET, SO_NOFCS), 0);
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
    OK(shutdown(ends[0], SHUT_WR));
    FAILS(send(ends[0], "x", 1, 0), EPIPE); /* no signal */
    SAME(broken_pipes, 2);
    int listener = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    OK(bind(listener, &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t)));
    OK(listen(listener, 5));
    OK(shutdown(listener, SHUT_RDWR));
    FAILS(accept(listener, 0, 0), EAGAIN);
    OK(pipe(ends));
    FAILS(send(ends[1], "x", 1, 0), ENOTSOCK);
    close(ends[0]);
    FAILS(write(ends[1], "x", 1), EPIPE);
    FAILS(writev(ends[1], &part, 1), EPIPE);
    SAME(broken_pipes, 4);
    FAILS(shutdown(ends[1], SHUT_WR), ENOTSOCK);
    FAILS(shutdown(-1, SHUT_WR), EBADF);
}

CASE(credentials_over_its_own_unix_socket) {
    int ends[2], on = 1;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    OK(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    SAME(option(ends[1], SOL_SOCKET, SO_PASSCRED), 1);
    SAME(write(ends[0], "x", 1), 1);
    char byte, space[CMSG_SPACE(sizeof(struct ucred))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    SAME(recvmsg(ends[1], &message, 0), 1);
    SAME(CMSG_FIRSTHDR(&message)->cmsg_type, SCM_CREDENTIALS);
    SAME(((struct ucred *)CMSG_DATA(CMSG_FIRSTHDR(&message)))->pid, getpid());
}

CASE(sockets_of_odd_kinds) {
    TELL(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    TELL(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    TELL(socket(AF_INET, 77, 0));
    TELL(socket(9999, SOCK_STREAM, 0));
    TELL(socket(AF_INET, SOCK_STREAM | 0x100000, 0));
    TELL(socket(AF_UNIX, SOCK_STREAM, 5));
    int sctp = socket(AF_INET, SOCK_STREAM, 132);
    if (sctp >= 0) CHECK(BIND(sctp, "127.0.0.1", 0) == 0);
}

/* bypass4netns #65: a nested network namespace was served by mistake. */
CASE(a_namespace_that_it_makes_for_itself) {
    int before = listening("127.0.0.1", 0);
    meet("127.0.0.1", port_of(before), before);
    if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) return; /* not allowed here */
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", port_of(before)), ENETUNREACH);
    FAILS(CONNECT(tcp(VIP), VIP, 80), ENETUNREACH);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    OK(ioctl(tcp("127.0.0.1"), SIOCSIFFLAGS, &lo));
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", port_of(before)), ECONNREFUSED);
    int inside = listening("127.0.0.1", port_of(before)), unbound = tcp("127.0.0.1");
    meet("127.0.0.1", port_of(inside), inside);
    OK(listen(unbound, 5));
    meet("127.0.0.1", port_of(unbound), unbound);
    int one = OK(socket(AF_INET, SOCK_DGRAM, 0)), other = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct address to = at("127.0.0.1", 7001);
    char bytes[6] = "";
    OK(BIND(one, "127.0.0.1", 7001));
    SAME(sendto(other, "hello", 5, 0, &to.any, to.size), 5);
    SAME(recv(one, bytes, 5, 0), 5);
    OK(connect(other, &to.any, to.size));
    SAME(send(other, "again", 5, 0), 5);
    SAME(recv(one, bytes, 5, 0), 5);
    TEXT(bytes, "again");
}

static void *write_on(void *to) {
    static char much[65536];
    while (write(*(int *)to, much, sizeof much) > 0) continue;
    return 0;
}

CASE(a_thread_that_is_cancelled_in_write) {
    int ends[2];
    pthread_t thread;
    void *result;
    OK(pipe(ends));
    SAME(pthread_create(&thread, 0, write_on, &ends[1]), 0);
    while (events_of(ends[1], POLLOUT, 0)) continue; /* until the pipe is full */
    SAME(pthread_cancel(thread), 0);
    SAME(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
}
