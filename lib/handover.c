#include "unetserve/handover.h"

bool handover_is_open(const struct queue *queue, uint32_t model)
{
    if (model >= queue->geometry->model_count)
        return false;
    const struct queue_model *rule = &queue->models[model];
    return atomic_load_explicit(&rule->max_batch, memory_order_relaxed) < 2 ||
           atomic_load_explicit(&rule->batch_timeout_us, memory_order_relaxed) == 0;
}

bool handover_may_take(const struct queue *queue, uint16_t self)
{
    const struct queue_process *process = &queue->processes[self];
    return queue_process_is(queue, self, QUEUE_WORKER) &&
           atomic_load_explicit(&process->life, memory_order_acquire) == QUEUE_LIVE &&
           atomic_load_explicit(&process->ready, memory_order_relaxed) &&
           !atomic_load_explicit(&process->draining, memory_order_relaxed) &&
           handover_is_open(queue, atomic_load_explicit(&process->model, memory_order_relaxed));
}

/* Who has something in hand, as process indices. False: the job is not alone. */
static bool look_around(const struct queue *queue, uint32_t slot, uint32_t model,
                        bool busy[QUEUE_MAX_PROCESSES])
{
    for (uint32_t i = 0; i < queue->slot_count; i++) {
        uint64_t word = queue_word(queue, i);
        switch (queue_word_state(word)) {
        case QUEUE_READY:
            if (i != slot &&
                atomic_load_explicit(&queue->slots[i].model, memory_order_relaxed) == model)
                return false;
            break;
        case QUEUE_LEASED:
        case QUEUE_RUN:
        case QUEUE_STREAM:
            if (queue_word_owner(word) < QUEUE_MAX_PROCESSES)
                busy[queue_word_owner(word)] = true;
            break;
        default: break;
        }
    }
    return true;
}

/* The next index after that one of a worker that may take the model's jobs; 0: there is none. */
static uint16_t next_worker(const struct queue *queue, uint16_t after, uint32_t model,
                            uint32_t generation)
{
    for (uint16_t i = after; (i = queue_process_next(queue, i));) {
        const struct queue_process *process = &queue->processes[i];
        if (handover_may_take(queue, i) &&
            atomic_load_explicit(&process->model, memory_order_relaxed) == model &&
            atomic_load_explicit(&process->model_generation, memory_order_relaxed) == generation)
            return i;
    }
    return 0;
}

bool handover_is_only(const struct queue *queue, uint16_t self)
{
    const struct queue_process *process = &queue->processes[self];
    uint32_t model = atomic_load_explicit(&process->model, memory_order_relaxed);
    uint32_t generation = atomic_load_explicit(&process->model_generation, memory_order_relaxed);
    return next_worker(queue, 0, model, generation) == self &&
           next_worker(queue, self, model, generation) == 0;
}

uint16_t handover_find(const struct queue *queue, uint32_t slot)
{
    const struct queue_slot *job = &queue->slots[slot];
    uint32_t model = atomic_load_explicit(&job->model, memory_order_relaxed);
    uint32_t generation = atomic_load_explicit(&job->model_generation, memory_order_relaxed);
    if (!handover_is_open(queue, model))
        return 0;
    uint16_t worker = next_worker(queue, 0, model, generation);
    if (worker == 0 || next_worker(queue, worker, model, generation) == 0)
        return worker;
    bool busy[QUEUE_MAX_PROCESSES] = {false};
    if (!look_around(queue, slot, model, busy))
        return 0;
    while (worker && busy[worker])
        worker = next_worker(queue, worker, model, generation);
    return worker;
}

/* When each process has last begun something that it still runs; 0: it runs nothing. */
static void find_begun(const struct queue *queue, uint64_t now_ns,
                       uint64_t begun_ns[QUEUE_MAX_PROCESSES])
{
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        uint64_t word = queue_word(queue, slot);
        enum queue_state state = queue_word_state(word);
        uint16_t owner = queue_word_owner(word);
        if ((state != QUEUE_RUN && state != QUEUE_STREAM) || owner >= QUEUE_MAX_PROCESSES)
            continue;
        uint64_t at_ns = atomic_load_explicit(&queue->slots[slot].started_ns, memory_order_relaxed);
        at_ns = at_ns ? at_ns : now_ns;
        if (at_ns > begun_ns[owner])
            begun_ns[owner] = at_ns;
    }
}

uint64_t handover_find_stuck(const struct queue *queue, uint16_t self, uint64_t now_ns)
{
    const struct queue_process *process = &queue->processes[self];
    uint32_t model = atomic_load_explicit(&process->model, memory_order_relaxed);
    uint32_t generation = atomic_load_explicit(&process->model_generation, memory_order_relaxed);
    uint64_t begun_ns[QUEUE_MAX_PROCESSES] = {0};
    uint64_t first_ns = 0;
    find_begun(queue, now_ns, begun_ns);
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        const struct queue_slot *job = &queue->slots[slot];
        uint64_t word = queue_word(queue, slot);
        uint16_t owner = queue_word_owner(word);
        if (queue_word_state(word) != QUEUE_LEASED || owner == self ||
            owner >= QUEUE_MAX_PROCESSES || begun_ns[owner] == 0 ||
            atomic_load_explicit(&job->model, memory_order_relaxed) != model ||
            atomic_load_explicit(&job->model_generation, memory_order_relaxed) != generation)
            continue;
        uint64_t until_ns = handover_patient_until(begun_ns[owner], now_ns);
        if (first_ns == 0 || until_ns < first_ns)
            first_ns = until_ns;
    }
    return first_ns;
}
