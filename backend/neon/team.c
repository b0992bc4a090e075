/* The executor: walks the steps of a plan by a team of threads. plan/executor.py is the same in Numba.
 *
 * Members walk through all steps together. A step's units are divided evenly; whoever has finished its share takes from
 * the others', and goes on when all units are done. On big.LITTLE that is what gives faster cores more units.
 * Between runs members poll for a while, then sleep.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

int64_t ln_gemm_units(const ln_step *step, int64_t images);
int64_t ln_winograd_units(const ln_step *step, int64_t images);

/* How long a member waits is measured in time: a poll takes longer on one core than on another.
 *
 * Units of a step are made to take some tens of microseconds, so a member whose share is done waits about as long for those
 * that others have begun; who waits for more than YIELD_AFTER_NS may be waiting for a thread that has no CPU, and offers its
 * own. Between two queries of a stream there is Python, ten microseconds and more. Members that slept then would cost the
 * caller a system call and each query the time in which they wake; SLEEP_AFTER_NS is many times both. A process that has
 * nothing to do uses no CPU from then on. */
enum { YIELD_AFTER_NS = 20000, SLEEP_AFTER_NS = 200000, POLLS_PER_LOOK = 64 };

typedef struct {
    ln_team *team;
    int64_t me;
} ln_member;

struct ln_team {
    int64_t threads;
    pthread_t *handles; /* of members 1 to threads - 1 */
    ln_member *members;
    _Atomic int64_t *tids;
    const ln_run *run;
    _Atomic int64_t turn, finished, sleeping;
    _Atomic int closing;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

typedef struct {
    int64_t polls, begin_ns, ns; /* ns: how long the wait had lasted at the last look */
} ln_wait;

/* CNTVCT_EL0, read in this process, with the frequency and the errata that the kernel knows. */
static int64_t ln_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Between two polls of a wait, which begins as {0}. The clock is looked at now and then, and first after POLLS_PER_LOOK
 * polls: short waits pay nothing. Most cores take YIELD for a NOP; ISB holds one up for some tens of cycles, as x86's PAUSE
 * does (so Rust's spin_loop, rust-lang/rust#84725, and RocksDB, jemalloc, WiredTiger). */
static void ln_pause(ln_wait *wait) {
    int yields = wait->ns >= YIELD_AFTER_NS;
    if (++wait->polls % POLLS_PER_LOOK == 0 || yields) { /* a yield may take milliseconds */
        int64_t now_ns = ln_now_ns();
        if (!wait->begin_ns) wait->begin_ns = now_ns;
        wait->ns = now_ns - wait->begin_ns;
    }
    if (yields)
        sched_yield();
    else
        __asm__ volatile("isb");
}

static int64_t ln_units(const ln_step *step, int64_t images) {
    switch (step->unit_kind) {
    case CHAIN_UNITS: return step->parts * images;
    case GEMM_UNITS: return ln_gemm_units(step, images);
    case PATCH_UNITS: return ln_winograd_units(step, images);
    case ROW_UNITS: return ln_ceil_div(images * step->out_h, step->rows);
    default: return ln_ceil_div(images, step->rows);
    }
}

static int64_t ln_step_images(const ln_step *step, int64_t batch) {
    return ln_min(step->chunk, ln_max(0, batch - step->first)) * step->images;
}

/* One unit of a step: a kernel's, or the links of one part of a chain, one after the other. */
static void ln_run_unit(const ln_run *run, const ln_step *step, int64_t images, int64_t unit, int64_t worker) {
    if (step->unit_kind != CHAIN_UNITS) {
        run->kernels[step->kernel](run->memory, step, images, unit, worker);
        return;
    }
    const int32_t *bounds = run->memory->tables + step->part_links + unit;
    for (const ln_step *link = run->steps + step->link + bounds[0]; link < run->steps + step->link + bounds[1]; link++) {
        int64_t units = ln_units(link, 1);
        for (int64_t inner = 0; inner < units; inner++)
            run->kernels[link->kernel](run->memory, link, 1, inner, worker);
    }
}

static void ln_run_serial(const ln_run *run) {
    for (int64_t index = run->first; index < run->last; index++) {
        const ln_step *step = run->steps + index;
        int64_t images = ln_step_images(step, run->batch), units = ln_units(step, images);
        for (int64_t unit = 0; unit < units; unit++) ln_run_unit(run, step, images, unit, 0);
    }
}

static void ln_wait_for(_Atomic int64_t *counter, int64_t value) {
    ln_wait wait = {0};
    while (atomic_load_explicit(counter, memory_order_acquire) < value) ln_pause(&wait);
}

static void ln_participate(const ln_run *run, int64_t threads, int64_t me) {
    for (int64_t index = run->first; index < run->last; index++) {
        const ln_step *step = run->steps + index;
        int64_t images = ln_step_images(step, run->batch), units = ln_units(step, images);
        _Atomic int64_t *next = (_Atomic int64_t *)run->counters + index * (threads + 1) * COUNTER_PITCH;
        _Atomic int64_t *done = next + threads * COUNTER_PITCH;
        for (int64_t turn = 0; turn < threads; turn++) {
            int64_t owner = (me + turn) % threads;
            int64_t begin = units * owner / threads, end = units * (owner + 1) / threads;
            for (;;) {
                int64_t unit = begin + atomic_fetch_add(next + owner * COUNTER_PITCH, 1);
                if (unit >= end) break;
                ln_run_unit(run, step, images, unit, me);
                atomic_fetch_add(done, 1);
            }
        }
        ln_wait_for(done, units);
    }
}

/* Waits until a turn after `seen` begins; returns it. */
static int64_t ln_next_turn(ln_team *team, int64_t seen) {
    for (ln_wait wait = {0}; wait.ns < SLEEP_AFTER_NS; ln_pause(&wait)) {
        int64_t turn = atomic_load_explicit(&team->turn, memory_order_acquire);
        if (turn != seen) return turn;
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->turn) == seen) pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
    return atomic_load(&team->turn);
}

static void ln_begin_turn(ln_team *team) {
    atomic_fetch_add(&team->turn, 1); /* before sleepers are counted: who comes later sees the new turn */
    if (atomic_load(&team->sleeping) > 0) {
        pthread_mutex_lock(&team->lock);
        pthread_cond_broadcast(&team->wake);
        pthread_mutex_unlock(&team->lock);
    }
}

static void *ln_member_main(void *argument) {
    ln_member *member = argument;
    ln_team *team = member->team;
    atomic_store(&team->tids[member->me], (int64_t)syscall(SYS_gettid));
    atomic_fetch_add(&team->finished, 1);
    for (int64_t turn = 0;;) {
        turn = ln_next_turn(team, turn);
        if (atomic_load(&team->closing)) return NULL;
        ln_participate(team->run, team->threads, member->me);
        atomic_fetch_add(&team->finished, 1);
    }
}

void ln_team_close(ln_team *team) {
    atomic_store(&team->closing, 1);
    ln_begin_turn(team);
    for (int64_t me = 1; me < team->threads; me++) pthread_join(team->handles[me], NULL);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->wake);
    free(team->handles);
    free(team->members);
    free(team->tids);
    free(team);
}

ln_team *ln_team_open(int64_t threads) {
    ln_team *team = calloc(1, sizeof *team);
    if (!team) return NULL;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    team->handles = calloc((size_t)threads, sizeof *team->handles);
    team->members = calloc((size_t)threads, sizeof *team->members);
    team->tids = calloc((size_t)threads, sizeof *team->tids);
    team->threads = 1;
    if (!team->handles || !team->members || !team->tids) goto failed;
    for (int64_t me = 1; me < threads; me++) {
        team->members[me] = (ln_member){team, me};
        if (pthread_create(&team->handles[me], NULL, ln_member_main, &team->members[me])) goto failed;
        team->threads = me + 1;
    }
    ln_wait_for(&team->finished, threads - 1);
    return team;
failed:
    ln_team_close(team);
    return NULL;
}

void ln_team_tids(const ln_team *team, int64_t *tids) {
    for (int64_t me = 1; me < team->threads; me++) tids[me - 1] = atomic_load(&team->tids[me]);
}

void ln_team_run(ln_team *team, const ln_run *run) {
    int64_t threads = team->threads;
    if (threads == 1) {
        ln_run_serial(run);
        return;
    }
    int64_t per_step = (threads + 1) * COUNTER_PITCH;
    memset(run->counters + run->first * per_step, 0, (size_t)((run->last - run->first) * per_step) * sizeof(int64_t));
    team->run = run;
    atomic_store(&team->finished, 0);
    ln_begin_turn(team);
    ln_participate(run, threads, 0);
    ln_wait_for(&team->finished, threads - 1);
}
