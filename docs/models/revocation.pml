/* Revocation: a client that policy denies connects no more by a capability, from the moment on at which the deny is in
 * force. `spin` tries all orders of all steps (tests/test_models.py); -DWITHOUT_... takes one precaution away, and then
 * it has to find a way through.
 *
 * What is modelled: the epoch's page (appswitch/edge/epoch.py, shim/epoch.c: one word, read by others in one load), a
 * reload of the policy (edge/policing.py), the end of the trap handler and its successor, whose policy may be another
 * (host/last_word.py), a client that connects by a capability whenever it likes, since a hostile one heeds no epoch
 * (shim/capability.c), and the server's accept (shim/accept.c: accept_verified, shim/verify.c). A connection in the
 * listener's queue carries who made it: the kernel's word, which nobody forges.
 */
#define LIVES 2
#define CONNECTS 3

byte count[LIVES];     /* the page of each trap handler: how often it has moved on */
bool over[LIVES];      /* the kernel has marked it: its thread has ended */
byte life = 0;         /* the trap handler that there is, or was the last */
bool there = true;     /* it answers */
bool allowed = true;   /* its policy, of our client */
bool in_force = false; /* whoever changed the policy has been told so */

chan queue = [CONNECTS] of { bool }; /* the listener's: was the deny in force when the client connected? */

active proctype handler() {
    if
    :: true -> goto denies
    :: true -> goto dies
    fi;
denies:
    allowed = false; /* no question is answered between these two: it is one thread; the model doesn't rely on it */
#ifndef WITHOUT_EPOCH
    count[life]++;
#endif
    in_force = true;
dies:
    over[life] = true; /* exit_robust_list comes before the sockets are closed */
    there = false;
    if
    :: !in_force -> skip /* it is started with another policy file, or with the same */
    :: in_force -> goto starts
    fi;
    if
    :: true -> allowed = false
    :: true
    fi;
starts:
    life++;
    there = true;
    if
    :: !allowed -> in_force = true
    :: else
    fi
}

active proctype client() { /* it has a capability, and keeps it */
    byte made;
    for (made : 1 .. CONNECTS) {
        queue ! in_force
    }
}

#define NONE LIVES

active proctype server() {
    byte page = 0;               /* which it has mapped */
    byte known_in = NONE, known; /* the verdict that it remembers: in which life, at which count */
    bool late, begun_late, answer, page_over;
    byte page_count, taken;
    for (taken : 1 .. CONNECTS) {
        queue ? late;
        begun_late = in_force;
        answer = false;
        if
        :: known_in == NONE -> goto asks
        :: else
        fi;
#ifdef WITHOUT_CHECK
        answer = true;
        goto decided;
#endif
        d_step { page_count = count[page]; page_over = over[page] } /* one load of eight bytes: still_true() */
        if
        :: known_in != page || known != page_count -> goto asks
        :: known_in == page && known == page_count && !page_over -> answer = true; goto decided
        :: known_in == page && known == page_count && page_over ->
#ifdef WITHOUT_LOOKING
            answer = true; goto decided
#else
            if
            :: !there -> answer = true; goto decided /* nobody could have changed anything */
            :: there -> goto asks
            fi
#endif
        fi;
asks: /* one answer of the trap handler's: what it says and the epoch are of one moment */
        if
        :: d_step {
            there ->
            answer = allowed;
            if
            :: allowed -> known_in = life; known = count[life]
            :: else -> known_in = NONE
            fi;
            page = life
        }
        :: !there -> answer = false /* passed over */
        fi;
decided:
        if
        :: answer -> assert(!late && !begun_late) /* it is the program's now */
        :: else
        fi
    }
}
