/* The stacks that calls land on, where no tracer keeps an account of them. Async-signal-safe; no lock. */
#ifndef APPSWITCH_STACKS_H
#define APPSWITCH_STACKS_H

#include <linux/futex.h>

#include "landing.h"

/* One for a call of this thread, until the landing gives it back. Signals are blocked. 0: there is no memory. */
struct stack_head *take_stack(void);

/* In a vfork child: the stack is given back when the child becomes another program, or ends. `kept` lasts until then,
 * or until keep_at_exec. */
struct at_exec {
    struct robust_list_head head;
};
void give_back_at_exec(struct at_exec *kept, struct stack_head *head);
void keep_at_exec(void);

#endif
