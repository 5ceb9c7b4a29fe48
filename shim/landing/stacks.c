/* How it works. Stacks lie in groups, each group of twice as many as the one before. A call takes one by a
 * compare-and-swap on its owner, and the landing sets that to 0 again. Where to look for one depends on the thread, so
 * that a thread mostly finds the stack that it had before, and no thread looks at more than WINDOW of a group.
 *
 * Calls that never return, and how their stacks are found again when there is none free:
 * - The thread has ended: the kernel knows no such thread of ours any more.
 * - The call was left for good by siglongjmp: a thread that has more stacks than there are calls within calls takes the
 *   one that it has had for longest.
 * - A vfork child, which uses its parent's memory, has become another program, or has ended: the kernel itself says so
 *   in the word that is the owner, which the child names to it as a robust futex.
 * A fork child has a copy of all, and can't tell which of those in use its own thread needs still: it leaves them.
 */
#include "stacks.h"

#include <errno.h>
#include <sys/mman.h>

#include "../channel.h"
#include "../sys.h"

enum {
    FIRST = 8, /* stacks in the first group */
    GROUPS = 14,
    WINDOW = 8,
    MOST_WITHIN = 4,                    /* calls of a thread within another */
    IN_VFORK_CHILD = (int)FUTEX_WAITERS /* a bit that the kernel leaves as it is */
};

static uint64_t groups[GROUPS]; /* where each is; 0: it isn't there yet */
static uint64_t turns;

/* The stacks at which a thread looks, in this order; 0: no more. */
static struct stack_head *look(int tid, unsigned i) {
    unsigned group = i / WINDOW, count = (unsigned)FIRST << group, start = (unsigned)tid * 2654435761u >> 12;
    uint64_t at = group < GROUPS ? __atomic_load_n(&groups[group], __ATOMIC_ACQUIRE) : 0;
    return at ? (struct stack_head *)(at + ((start + i) % count + 1ull) * STACK_SIZE) - 1 : 0;
}

static int seize_from(struct stack_head *head, uint32_t former, uint32_t owner) {
    if (!__atomic_compare_exchange_n(&head->owner, &former, owner, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return 0;
    head->memory = (uint32_t)memory_pid();
    head->turn = __atomic_add_fetch(&turns, 1, __ATOMIC_RELAXED);
    return 1;
}

static int is_free(uint32_t owner) {
    return !owner || (owner & FUTEX_OWNER_DIED);
}

static struct stack_head *take_free(int tid, uint32_t owner) {
    struct stack_head *head;
    for (unsigned i = 0; (head = look(tid, i)); i++) {
        uint32_t former = __atomic_load_n(&head->owner, __ATOMIC_RELAXED);
        if (is_free(former) && seize_from(head, former, owner)) return head;
    }
    return 0;
}

static int has_ended(uint32_t tid, uint32_t pid) {
    return sys3(SYS_tgkill, pid, tid, 0) == -ESRCH;
}

static struct stack_head *take_left(int tid) {
    struct stack_head *head, *oldest = 0;
    uint32_t memory = (uint32_t)memory_pid(), self = (uint32_t)tid;
    int mine = 0;
    for (unsigned i = 0; (head = look(tid, i)); i++) {
        uint32_t owner = __atomic_load_n(&head->owner, __ATOMIC_ACQUIRE);
        if (!owner || head->memory != memory || (owner & IN_VFORK_CHILD)) continue;
        if (owner == self) {
            mine++;
            if (!oldest || head->turn < oldest->turn) oldest = head;
        } else if (has_ended(owner, memory) && seize_from(head, owner, self)) {
            return head;
        }
    }
    return mine > MOST_WITHIN && seize_from(oldest, self, self) ? oldest : 0;
}

/* False: there is no memory, or no end. */
static int add_group(void) {
    int group = 0;
    while (group < GROUPS && __atomic_load_n(&groups[group], __ATOMIC_ACQUIRE)) group++;
    if (group == GROUPS) return 0;
    uint64_t none = 0;
    long size = (long)STACK_SIZE * FIRST << group;
    long at = sys6(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at < 0 && at > -4096) return 0;
    if (!__atomic_compare_exchange_n(&groups[group], &none, (uint64_t)at, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        sys2(SYS_munmap, at, size); /* another thread was first */
    return 1;
}

struct stack_head *take_stack(void) {
    int tid = (int)sys0(SYS_gettid), is_vfork_child = tid != memory_pid() && !own_pid();
    uint32_t owner = (uint32_t)tid | (is_vfork_child ? IN_VFORK_CHILD : 0);
    do {
        struct stack_head *head = take_free(tid, owner);
        if (!head && !is_vfork_child) head = take_left(tid);
        if (head) return head;
    } while (add_group());
    return 0;
}

void give_back_at_exec(struct at_exec *kept, struct stack_head *head) {
    kept->head = (struct robust_list_head){
        .list = {&kept->head.list}, .list_op_pending = (struct robust_list *)&head->owner, .futex_offset = 0};
    sys2(SYS_set_robust_list, &kept->head, sizeof kept->head);
}

void keep_at_exec(void) {
    sys2(SYS_set_robust_list, 0, sizeof(struct robust_list_head));
}
