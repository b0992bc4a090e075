/* The team of the C library by itself: runs that follow at once, and runs that find all its members asleep.
 *
 * Each run is three steps of many units that count themselves; how often each was done is compared. Threads are
 * watched in /proc: that they sleep is waited for, so a member that polls for ever makes this program run for ever.
 * Prints "ok", or what was wrong.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "abi.h"

enum { THREADS = 4, STEPS = 3, UNITS = 100, RUNS = 50 };

static _Atomic int64_t units_done[STEPS][UNITS];

static void count(const ln_memory *memory, const ln_step *step, int64_t images, int64_t unit, int64_t worker) {
    (void)memory, (void)images;
    if (worker >= 0 && worker < THREADS) atomic_fetch_add(&units_done[step->x][unit], 1);
}

static int asleep(int64_t tid) {
    char path[64], line[256], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", (long)tid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file) || sscanf(line, "%*d (%*[^)]) %c", &state) != 1) exit(2);
    fclose(file);
    return state == 'S';
}

static void wait_until_all_sleep(const int64_t *tids) {
    for (int i = 0; i < THREADS - 1; i++)
        while (!asleep(tids[i])) usleep(1000);
}

int main(void) {
    ln_step steps[STEPS] = {0};
    for (int i = 0; i < STEPS; i++)
        steps[i] = (ln_step){.unit_kind = IMAGE_UNITS, .images = 1, .chunk = UNITS, .rows = 1, .x = i};
    ln_kernel *kernels[] = {count};
    ln_memory memory = {0};
    int64_t *counters = calloc(STEPS * (THREADS + 1) * COUNTER_PITCH, sizeof *counters), tids[THREADS - 1];
    ln_run run = {kernels, &memory, steps, 0, STEPS, UNITS, counters};
    ln_team *team = ln_team_open(THREADS);
    if (!team || !counters) return 2;
    ln_team_tids(team, tids);
    for (int runs = 0; runs < RUNS; runs++) {
        if (runs % 5 == 0) wait_until_all_sleep(tids);
        ln_team_run(team, &run);
    }
    wait_until_all_sleep(tids);
    ln_team_close(team);
    for (int step = 0; step < STEPS; step++)
        for (int unit = 0; unit < UNITS; unit++)
            if (units_done[step][unit] != RUNS) {
                printf("step %d, unit %d: done %ld times, not %d\n", step, unit, (long)units_done[step][unit], RUNS);
                return 1;
            }
    puts("ok");
    return 0;
}
