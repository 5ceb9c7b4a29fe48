/* What strangers and other hosts begin a connection to the peer port with, as the thread of lanes takes it
 * (shim/lane/lanes_in.c): a record of a lane, the trap handler's, or nobody's. */
#include "../../../shim/lane/lanes_in.c"

#include <stdio.h>
#include <sys/un.h>

static const uint8_t key[AS_LANE_KEY] = "0123456789abcde";
static struct as_lanes_in *lanes;
static int listener, told;

static void begin_lanes(void) {
    char directory[] = "/tmp/fuzz-lanes-XXXXXX";
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int pair[2];
    if (lanes) return;
    int epoch = memfd_create("epoch", MFD_CLOEXEC);
    if (!mkdtemp(directory) || ftruncate(epoch, 4096)) abort();
    snprintf(name.sun_path, sizeof name.sun_path, "%s/listener", directory);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) || listen(listener, 64)) abort();
    int handle = open(name.sun_path, O_PATH | O_CLOEXEC);
    unlink(name.sun_path);
    rmdir(directory);
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
    told = pair[0];
    lanes = as_lanes_in_new(dup(listener), pair[1], epoch, 7);
    if (!lanes || as_lane_put(lanes, 1, key, handle, 4, 4, 0) || as_lane_put(lanes, 2, key, handle, 6, 6, 1)) abort();
    close(handle);
    close(epoch);
}

static void clear_up_after(void) {
    struct as_lane_entry entries[64];
    int32_t fd;
    while (recv(told, &fd, sizeof fd, 0) == sizeof fd)
        if (fd >= 0) close(fd);
    for (int i = 0; i < WAITING; i++) {
        if (lanes->waiting[i].fd >= 0) reset(lanes->waiting[i].fd);
        lanes->waiting[i].fd = -1;
    }
    while ((fd = accept(listener, NULL, NULL)) >= 0) close(fd);
    while (as_lanes_in_take(lanes, entries, 64)) continue;
    as_lane_judged(lanes, 1, 0);
}

/* A third of what claims to be a record is one, by this key. */
static void seal_some(uint8_t *data, size_t size) {
    struct as_lane_record record;
    if (size < sizeof record || data[size - 1] % 3) return;
    memcpy(&record, data, sizeof record);
    record.lane = htobe64(1 + data[size - 1] % 2);
    seal_record(&record, key);
    memcpy(data, &record, sizeof record);
}

static int lowest_free(void) {
    int fd = dup(told);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t said[512];
    int pair[2];
    begin_lanes();
    int before = lowest_free();
    if (size > sizeof said) size = sizeof said;
    if (size == 0) return 0;
    memcpy(said, data, size);
    seal_some(said, size);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
    size_t first = data[0] % 4 ? size : data[size - 1] % size; /* in two pieces */
    if (first) send(pair[0], said, first, MSG_NOSIGNAL);
    unsigned place = lanes->next_place % WAITING;
    sort(lanes, pair[1], -1);
    if (first < size) send(pair[0], said + first, size - first, MSG_NOSIGNAL);
    if (lanes->waiting[place].fd == pair[1]) sort(lanes, pair[1], (int)place);
    close(pair[0]);
    if (lanes->waiting[place].fd == pair[1]) sort(lanes, pair[1], (int)place);
    clear_up_after();
    if (lowest_free() != before || !lanes->open) abort();
    return 0;
}
